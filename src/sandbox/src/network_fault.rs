//! A network between two parts that can be unplugged. Owns the bytes on their way; looks into none.
//!
//! Unplugged, nothing breaks and nothing arrives: connections stand still, new ones are taken and get no answer, as where a
//! network lost its way. Plugged in again, all go on.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// Bytes under way in one direction of a connection.
const UNDER_WAY: usize = 16 << 10;

/// A network to one address. Ends with its handle.
#[derive(Debug)]
pub struct NetworkFault {
    address: SocketAddr,
    plugged: watch::Sender<bool>,
    _connections: JoinSet<()>,
}

impl NetworkFault {
    /// A network that leads to `to`, plugged in.
    pub async fn start(to: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (plugged, state) = watch::channel(true);
        let mut connections = JoinSet::new();
        connections.spawn(listen(listener, to, state));
        Ok(Self {
            address,
            plugged,
            _connections: connections,
        })
    }

    /// Its near end.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Plugs it in, or out.
    pub fn plug(&self, plugged: bool) {
        self.plugged.send_replace(plugged);
    }
}

async fn listen(listener: TcpListener, to: SocketAddr, plugged: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((near, _)) => {
                    connections.spawn(connect(near, to, plugged.clone()));
                }
                Err(error) => tracing::warn!(%error, "a cable can't accept a connection"),
            },
            Some(ended) = connections.join_next() => {
                if let Ok(Err(error)) = ended {
                    tracing::debug!(%error, "a connection over a cable ended");
                }
            }
        }
    }
}

async fn connect(mut near: TcpStream, to: SocketAddr, mut plugged: watch::Receiver<bool>) -> io::Result<()> {
    until_plugged(&mut plugged).await?;
    let mut far = TcpStream::connect(to).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let (from_near, to_near) = near.split();
    let (from_far, to_far) = far.split();
    // A side that breaks takes the other along; one that has said all is still answered.
    tokio::try_join!(
        carry(from_near, to_far, plugged.clone()),
        carry(from_far, to_near, plugged)
    )?;
    Ok(())
}

async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut plugged: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut bytes = vec![0; UNDER_WAY];
    loop {
        let length = from.read(&mut bytes).await?;
        until_plugged(&mut plugged).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        to.write_all(&bytes[..length]).await?;
    }
}

async fn until_plugged(plugged: &mut watch::Receiver<bool>) -> io::Result<()> {
    plugged.wait_for(|plugged| *plugged).await.map_err(io::Error::other)?;
    Ok(())
}
