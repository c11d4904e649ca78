//! What a container without a command runs: TCP and UDP servers that say who they are and echo.

use std::{
    io,
    net::{Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
};

/// Arguments of `voile-lab pod-server`.
#[derive(clap::Args, Clone, Debug)]
pub struct PodServerArgs {
    /// TCP ports to listen on
    #[arg(long, value_name = "PORT")]
    pub tcp: Vec<u16>,
    /// UDP ports to listen on
    #[arg(long, value_name = "PORT")]
    pub udp: Vec<u16>,
}

/// Serves until it is killed.
pub async fn run(args: PodServerArgs) -> io::Result<()> {
    let name = nix::unistd::gethostname()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    // One socket for both families: Linux maps IPv4 peers unless told otherwise (RFC 3493, section 5.3).
    let any = |port| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    for port in args.tcp {
        let listener = TcpListener::bind(any(port)).await?;
        tokio::spawn(serve_tcp(listener, name.clone()));
    }
    for port in args.udp {
        let socket = UdpSocket::bind(any(port)).await?;
        tokio::spawn(serve_udp(socket));
    }
    let mut end = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    end.recv().await;
    Ok(())
}

async fn serve_tcp(listener: TcpListener, name: String) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(talk(stream, name.clone()))),
            Err(error) => tracing::warn!(%error, "accept"),
        }
    }
}

/// Says the pod's name, then echoes; an HTTP request gets an HTTP answer.
async fn talk(mut stream: TcpStream, name: String) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    let mut first = true;
    loop {
        let count = stream.read(&mut buffer).await?;
        let Some(data) = buffer.get(..count).filter(|data| !data.is_empty()) else { return Ok(()) };
        if first && [b"GET ".as_slice(), b"HEAD "].iter().any(|verb| data.starts_with(verb)) {
            let body = format!("{name}\n");
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(body.as_bytes()).await?;
            stream.shutdown().await?;
            // Closing with unread data would reset the connection before the answer is read.
            let drain =
                async { while stream.read(&mut buffer).await.is_ok_and(|count| count > 0) {} };
            let _ = tokio::time::timeout(Duration::from_secs(1), drain).await;
            return Ok(());
        }
        first = false;
        stream.write_all(data).await?;
    }
}

async fn serve_udp(socket: UdpSocket) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok((count, peer)) = socket.recv_from(&mut buffer).await {
        if let Some(data) = buffer.get(..count) {
            drop(socket.send_to(data, peer).await);
        }
    }
}
