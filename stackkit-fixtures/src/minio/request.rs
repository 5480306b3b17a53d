//! Signed requests for making buckets, by hand: the S3 client of the engine is what is being tested.
//!
//! Signature Version 4: <https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html>.

use std::fmt::Write as _;

use ring::{digest, hmac};
use stackkit_core::{Clock, Error, ErrorKind, Result, Secret};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Answers to what is sent here are short.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// Who signs.
#[derive(Debug)]
pub(crate) struct Credentials {
    pub(crate) access_key: String,
    pub(crate) secret_key: Secret,
}

/// A request to a server, path style. Headers have lower-case names; path and query are encoded already.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) query: &'a str,
    pub(crate) headers: &'a [(&'a str, &'a str)],
    pub(crate) body: &'a str,
}

impl Request<'_> {
    /// Signs and sends it; any answer but a success is an error.
    pub(crate) async fn send(&self, address: &str, region: &str, credentials: &Credentials) -> Result<()> {
        let time = Clock::system().now().strftime("%Y%m%dT%H%M%SZ").to_string();
        let answer = exchange(address, self.signed(address, &Scope { time: &time, region }, credentials)).await?;
        match answer.status {
            200..300 => Ok(()),
            status => Err(Error::new(ErrorKind::ToolFailed, "minio refused the request")
                .with_context("status", status)
                .with_context("path", self.path)
                .with_source(answer.text)),
        }
    }

    fn signed(&self, address: &str, scope: &Scope<'_>, credentials: &Credentials) -> Vec<u8> {
        let body_hash = sha256(self.body.as_bytes());
        let mut headers = vec![("host", address), ("x-amz-content-sha256", &body_hash), ("x-amz-date", scope.time)];
        headers.extend_from_slice(self.headers);
        headers.sort_unstable();
        let lines = headers.iter().fold(String::new(), |mut lines, (name, value)| {
            let _ = writeln!(lines, "{name}:{value}");
            lines
        });
        let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
        let canonical = format!("{}\n{}\n{}\n{lines}\n{names}\n{body_hash}", self.method, self.path, self.query);
        let signature = scope.sign(&canonical, credentials.secret_key.expose());
        let target = if self.query.is_empty() { self.path.to_owned() } else { format!("{}?{}", self.path, self.query) };
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={}/{}, SignedHeaders={names}, Signature={signature}",
            credentials.access_key,
            scope.name()
        );
        let length = self.body.len();
        let head = format!("{} {target} HTTP/1.1\r\n{}", self.method, lines.replace('\n', "\r\n"));
        let rest = format!("authorization:{authorization}\r\ncontent-length:{length}\r\nconnection:close\r\n\r\n");
        format!("{head}{rest}{}", self.body).into_bytes()
    }
}

/// What a signature is good for.
struct Scope<'a> {
    /// `20260131T235959Z`.
    time: &'a str,
    region: &'a str,
}

impl Scope<'_> {
    fn day(&self) -> &str {
        self.time.split('T').next().unwrap_or_default()
    }

    fn name(&self) -> String {
        format!("{}/{}/s3/aws4_request", self.day(), self.region)
    }

    fn sign(&self, canonical: &str, secret_key: &str) -> String {
        let text = format!("AWS4-HMAC-SHA256\n{}\n{}\n{}", self.time, self.name(), sha256(canonical.as_bytes()));
        let first = format!("AWS4{secret_key}").into_bytes();
        let steps = [self.day(), self.region, "s3", "aws4_request", &text];
        hex(&steps.iter().fold(first, |key, step| {
            let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
            hmac::sign(&key, step.as_bytes()).as_ref().to_vec()
        }))
    }
}

/// An answer's status, and all of it as text.
pub(crate) struct Answer {
    pub(crate) status: u16,
    text: String,
}

/// Sends the bytes of a request that closes its connection, and reads the answer.
pub(crate) async fn exchange(address: &str, request: Vec<u8>) -> Result<Answer> {
    let io = |error| Error::io("talk to minio", error);
    let mut stream = TcpStream::connect(address).await.map_err(|error| Error::unreachable("connect", error))?;
    stream.write_all(&request).await.map_err(io)?;
    let mut bytes = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes).await.map_err(io)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    // A server that is starting may close before it answers.
    let status = status.ok_or_else(|| Error::new(ErrorKind::Starting, "the answer has no status"))?;
    Ok(Answer { status, text })
}

fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example "GET Bucket Lifecycle" of the page above.
    #[test]
    fn the_signature_is_that_of_the_specification() {
        let scope = Scope { time: "20130524T000000Z", region: "us-east-1" };
        let canonical = "GET\n/\nlifecycle=\nhost:examplebucket.s3.amazonaws.com\n\
            x-amz-content-sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n\
            x-amz-date:20130524T000000Z\n\nhost;x-amz-content-sha256;x-amz-date\n\
            e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let signature = scope.sign(canonical, "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY");
        assert_eq!(signature, "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
    }

    #[test]
    fn a_signed_request_is_one_http_request() {
        let credentials = Credentials { access_key: "key".into(), secret_key: "secret".to_owned().into() };
        let request = Request { method: "PUT", path: "/b", query: "versioning=", headers: &[], body: "<x/>" };
        let scope = Scope { time: "20130524T000000Z", region: "r" };
        let text = String::from_utf8(request.signed("127.0.0.1:9", &scope, &credentials)).unwrap();
        assert!(text.starts_with("PUT /b?versioning= HTTP/1.1\r\nhost:127.0.0.1:9\r\n"), "{text}");
        assert!(text.ends_with("\r\ncontent-length:4\r\nconnection:close\r\n\r\n<x/>"), "{text}");
        assert!(text.contains("Credential=key/20130524/r/s3/aws4_request") && !text.contains("secret"), "{text}");
    }
}
