//! As much of an HTTP client as one API server on loopback needs.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    sync::Mutex,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use kernel::NetNs;
use serde_json::Value;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server inside a namespace.
#[derive(Debug)]
pub(super) struct Http {
    address: String,
    /// What every path begins with.
    base: String,
    token: String,
    netns: NetNs,
    /// Kept open between requests.
    connection: Mutex<Option<BufReader<TcpStream>>>,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    body: String,
}

impl Http {
    pub(super) fn new(address: &str, token: &str, netns: &NetNs) -> Result<Self> {
        let (address, token) = (address.to_owned(), token.to_owned());
        let netns = NetNs::open(netns.process_path())?;
        let base = String::new();
        Ok(Self { address, base, token, netns, connection: Mutex::new(None) })
    }

    /// Finds address and token in a kubeconfig of the lab's API server.
    pub(super) fn of_kubeconfig(text: &str, netns: &NetNs) -> Result<Self> {
        let after = |key: &str| {
            let rest = text.split_once(key)?.1;
            let end = |c: char| c.is_whitespace() || "\"',}".contains(c);
            rest.trim_start_matches(['"', '\'', ' ', ':']).split(end).next()
        };
        let address = after("server").and_then(|url| url.strip_prefix("http://"));
        let address = address.context("the kubeconfig names no http:// server")?;
        let (address, base) = address.split_once('/').unwrap_or((address, ""));
        let server = Self::new(address, after("token").unwrap_or_default(), netns)?;
        let base = if base.is_empty() { String::new() } else { format!("/{base}") };
        Ok(Self { base, ..server })
    }

    pub(super) fn get(&self, path: &str) -> Result<Answer> {
        self.request("GET", path, None)
    }

    /// Creates an object.
    pub(super) fn create(&self, path: &str, object: &Value) -> Result<()> {
        expect(&self.request("POST", path, Some(object))?, path)
    }

    /// Replaces an object, whatever its revision.
    pub(super) fn replace(&self, path: &str, object: &Value) -> Result<()> {
        expect(&self.request("PUT", path, Some(object))?, path)
    }

    fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer> {
        let mut kept = self.connection.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => BufReader::new(self.connect()?),
        };
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = format!(
            "{method} {}{path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.base,
            self.address,
            self.token,
            body.len()
        );
        connection.get_mut().write_all(request.as_bytes())?;
        let answer = read(&mut connection).with_context(|| format!("{method} {path}"))?;
        *kept = Some(connection);
        Ok(answer)
    }

    fn connect(&self) -> Result<TcpStream> {
        let stream = self.netns.run(|| TcpStream::connect(&self.address))?;
        let stream = stream.with_context(|| format!("cannot connect to {}", self.address))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }
}

fn read(connection: &mut BufReader<TcpStream>) -> Result<Answer> {
    let mut line = String::new();
    connection.read_line(&mut line)?;
    let status = line.split_whitespace().nth(1).and_then(|word| word.parse().ok());
    let status = status.context("no HTTP answer")?;
    let mut length = None;
    loop {
        line.clear();
        connection.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().ok();
        }
    }
    let mut body = vec![0; length.context("an answer without Content-Length")?];
    connection.read_exact(&mut body)?;
    Ok(Answer { status, body: String::from_utf8_lossy(&body).into_owned() })
}

fn expect(answer: &Answer, path: &str) -> Result<()> {
    ensure!((200..300).contains(&answer.status), "{path}: {} {}", answer.status, answer.body);
    Ok(())
}
