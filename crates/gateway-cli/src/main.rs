//! gatewayctl
fn main() {}
