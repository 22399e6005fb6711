//! A plain TCP server on the port: it is named and left alone.

use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use gateway_manager::{FailureClass, Phase};

use crate::processes;
use crate::report::ANSWER;
use crate::sandbox::Sandbox;
use crate::supervised::Supervised;

pub(crate) async fn run() {
    let sandbox = Sandbox::new();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, sandbox.port)).expect("a listener");
    let gateway = Supervised::new(sandbox.builder().await);
    let failure = gateway
        .start_fails("start on the port of another program refused", ANSWER)
        .await;
    assert_eq!(failure.class, FailureClass::PortHeld, "{failure}");
    let program = std::env::current_exe().expect("this program");
    for part in [
        format!("pid {}", std::process::id()),
        program.display().to_string(),
    ] {
        assert!(failure.message.contains(&part), "{failure}");
    }
    // It would go on by itself if the listener went away; nothing was launched meanwhile.
    assert_eq!(gateway.status().phase, Phase::WaitingForHolder);
    assert_eq!(gateway.times_in(Phase::Spawning).await, 0);
    accepts(&listener).expect("a listener that was left alone");
    gateway.stop("stop while waiting for the port").await;
    accepts(&listener).expect("a listener that was left alone");
    processes::nothing_runs().await;
}

/// A new connection arrives; older ones in the queue came from the look at the port.
fn accepts(listener: &TcpListener) -> io::Result<()> {
    let own = TcpStream::connect(listener.local_addr()?)?;
    while listener.accept()?.1 != own.local_addr()? {}
    Ok(())
}
