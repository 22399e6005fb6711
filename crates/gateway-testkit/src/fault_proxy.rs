//! A TCP proxy on loopback that breaks connections where a test wants them broken.
//!
//! It knows nothing of what passes through, so that a frame can be cut in the middle.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// How a connection breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Both sides see an orderly end of the stream.
    Close,
    /// Both sides see a reset.
    Reset,
    /// Nothing more passes in this direction, or in both when [`FaultProxy::cut`] asked for it; the sockets stay open.
    Stall,
}

/// A limit for one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// How many bytes pass.
    pub bytes: u64,
    /// What happens then.
    pub then: Cut,
}

/// What happens to connections accepted from now on. Nothing by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProxyPlan {
    /// From the client to the server.
    pub to_server: Option<Limit>,
    /// From the server to the client.
    pub to_client: Option<Limit>,
}

/// A running proxy. Dropping it closes every connection.
///
/// ```no_run
/// use gateway_testkit::fault_proxy::{Cut, FaultProxy, Limit, ProxyPlan};
///
/// # async fn example() -> std::io::Result<()> {
/// let proxy = FaultProxy::start(([127, 0, 0, 1], 18789).into()).await?;
/// // The connection resets in the middle of the first kilobyte from the server.
/// proxy.set_plan(ProxyPlan { to_client: Some(Limit { bytes: 500, then: Cut::Reset }), ..ProxyPlan::default() });
/// println!("ws://127.0.0.1:{}/", proxy.port());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct FaultProxy {
    port: u16,
    plan: Arc<Mutex<ProxyPlan>>,
    orders: watch::Sender<Option<Cut>>,
    task: JoinHandle<()>,
}

impl FaultProxy {
    /// Listens on a free port of `127.0.0.1` and connects to `server` for every client.
    ///
    /// # Errors
    ///
    /// When no port can be bound.
    pub async fn start(server: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let plan = Arc::new(Mutex::new(ProxyPlan::default()));
        let (orders, _) = watch::channel(None);
        let task = tokio::spawn(accept(listener, server, Arc::clone(&plan), orders.clone()));
        Ok(Self {
            port,
            plan,
            orders,
            task,
        })
    }

    /// The port to connect to.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Sets what happens to connections accepted from now on.
    pub fn set_plan(&self, plan: ProxyPlan) {
        *self.plan.lock().unwrap_or_else(PoisonError::into_inner) = plan;
    }

    /// Breaks every open connection now. Connections accepted later are not touched.
    pub fn cut(&self, how: Cut) {
        self.orders.send_replace(Some(how));
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(
    listener: TcpListener,
    server: SocketAddr,
    plan: Arc<Mutex<ProxyPlan>>,
    orders: watch::Sender<Option<Cut>>,
) {
    let mut relays = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((client, _)) = accepted {
                let plan = *plan.lock().unwrap_or_else(PoisonError::into_inner);
                relays.spawn(relay(client, server, plan, orders.subscribe()));
            },
            Some(_) = relays.join_next() => {}
        }
    }
}

async fn relay(
    mut client: TcpStream,
    address: SocketAddr,
    plan: ProxyPlan,
    mut orders: watch::Receiver<Option<Cut>>,
) {
    // A server that is not there ends the client's connection too.
    let Ok(mut server) = TcpStream::connect(address).await else {
        return;
    };
    // Small writes pass as they come; a failure only makes them slower.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let cut = {
        let (mut client_read, mut client_write) = client.split();
        let (mut server_read, mut server_write) = server.split();
        let both = async {
            let to_server = pump(&mut client_read, &mut server_write, plan.to_server);
            let to_client = pump(&mut server_read, &mut client_write, plan.to_client);
            tokio::pin!(to_server, to_client);
            let mut ended = 0;
            let (mut server_done, mut client_done) = (false, false);
            while ended < 2 {
                let end = tokio::select! {
                    end = &mut to_server, if !server_done => { server_done = true; end }
                    end = &mut to_client, if !client_done => { client_done = true; end }
                };
                match end {
                    // The other direction goes on; this one never ends.
                    Some(Cut::Stall) => {}
                    Some(cut) => return cut,
                    None => ended += 1,
                }
                if server_done && client_done && ended < 2 {
                    std::future::pending::<()>().await;
                }
            }
            Cut::Close
        };
        tokio::select! {
            cut = both => cut,
            _ = orders.changed() => orders.borrow().unwrap_or(Cut::Close),
        }
    };
    match cut {
        Cut::Stall => std::future::pending().await,
        Cut::Reset => {
            // Closing with nothing to linger for sends a reset. Where that fails the connection still ends.
            let _ = (client.set_zero_linger(), server.set_zero_linger());
        }
        Cut::Close => {}
    }
}

/// Copies until the end of the stream (`None`) or the limit.
async fn pump(
    from: &mut ReadHalf<'_>,
    to: &mut WriteHalf<'_>,
    limit: Option<Limit>,
) -> Option<Cut> {
    let mut buffer = vec![0; 16 * 1024];
    let mut left = limit.map(|limit| limit.bytes);
    loop {
        if left == Some(0) {
            return limit.map(|limit| limit.then);
        }
        let room = left.map_or(buffer.len(), |left| {
            usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(buffer.len())
        });
        let count = from.read(&mut buffer[..room]).await.unwrap_or(0);
        if count == 0 || to.write_all(&buffer[..count]).await.is_err() {
            // The other direction goes on, as TCP allows.
            let _ = to.shutdown().await;
            return None;
        }
        left = left.map(|left| left - count as u64);
    }
}
