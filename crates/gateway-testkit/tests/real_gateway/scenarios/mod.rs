//! The scenarios, a file each.

pub(crate) mod broken_configuration;
pub(crate) mod cold_start;
pub(crate) mod configured_token;
pub(crate) mod crash_and_restart;
pub(crate) mod drain;
pub(crate) mod foreign_listener;
pub(crate) mod halted;
pub(crate) mod launcher;
pub(crate) mod neighbours;
pub(crate) mod old_node;
pub(crate) mod prepared_launch;
pub(crate) mod survivor;
pub(crate) mod unparseable_configuration;
