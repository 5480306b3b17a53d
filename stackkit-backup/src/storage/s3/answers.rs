//! Against a server that answers as Amazon's documentation says, where the servers of the other tests do otherwise.

use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use object_store::path::Path;
use stackkit_core::ErrorKind;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

use super::client::Client;
use super::location::{self, BucketLocation};
use super::settings::{Credentials, Settings};
use super::{Bucket, client};
use crate::storage::{Deleted, ObjectLockMode};

const OPERATION: &str = "test";

/// What is answered to a request such as `GET /bucket?versioning=`.
type Answer = fn(&str) -> (u16, String);

/// A server that writes down what it is asked.
struct Server {
    bucket: Bucket,
    asked: Arc<Mutex<Vec<String>>>,
    _accepting: AbortOnDropHandle<()>,
}

impl Server {
    async fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let log = Arc::clone(&asked);
        let accepting = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let request = serve_one(stream, answer).await;
                log.lock().unwrap().push(request);
            }
        });
        let location = BucketLocation::parse(&url::Url::parse("s3://bucket/some/prefix").unwrap()).unwrap();
        let settings = Settings {
            credentials: Credentials::Key { id: "id".into(), secret: "hunter2".into(), token: Some("tok".into()) },
            region: "eu-west-1".to_owned(),
            endpoint: Some(location::endpoint(&endpoint).unwrap()),
            path_style: true,
        };
        let client: Client = client(&location, settings).unwrap();
        let bucket = Bucket::new(client, Path::from("some/prefix"));
        Self { bucket, asked, _accepting: AbortOnDropHandle::new(accepting) }
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

async fn serve_one(stream: TcpStream, answer: Answer) -> String {
    let mut stream = BufReader::new(stream);
    let (mut first, mut length, mut signed) = (String::new(), 0, false);
    stream.read_line(&mut first).await.unwrap();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        let line = line.trim().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        length = line.strip_prefix("content-length: ").map_or(length, |length| length.parse().unwrap());
        signed |= line.starts_with("authorization: aws4-hmac-sha256 credential=id/");
    }
    assert!(signed, "{first}");
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    let request = first.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
    let (status, text) = answer(&request);
    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", text.len());
    stream.write_all(format!("{head}{text}").as_bytes()).await.unwrap();
    if body.is_empty() { request } else { format!("{request} {}", String::from_utf8(body).unwrap()) }
}

fn refusal(status: u16, code: &str) -> (u16, String) {
    (status, format!("<Error><Code>{code}</Code><Message>hunter2</Message></Error>"))
}

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

#[tokio::test]
async fn old_uploads_are_aborted_on_all_pages() {
    let server = Server::start(|request| match request.split(' ').next() {
        Some("DELETE") if request.contains("uploadId=gone") => refusal(404, "NoSuchUpload"),
        Some("DELETE") => (204, String::new()),
        _ => {
            let upload = |key: &str, id: &str, at: &str| {
                format!("<Upload><Key>some/prefix/{key}</Key><UploadId>{id}</UploadId><Initiated>{at}</Initiated></Upload>")
            };
            let more = !request.contains("key-marker=some%2Fprefix%2Fb");
            let uploads = match more {
                true => upload("a b", "u/1+", "2026-01-01T00:00:00.000Z") + &upload("b", "young", "2026-03-01T00:00:00Z"),
                false => upload("c", "gone", "2026-01-01T00:00:00Z") + &upload("d", "u2", "2026-01-31T23:59:59.999Z"),
            };
            let next = "<NextKeyMarker>some/prefix/b</NextKeyMarker><NextUploadIdMarker>young</NextUploadIdMarker>";
            (200, format!("<ListMultipartUploadsResult><IsTruncated>{more}</IsTruncated>{next}{uploads}</ListMultipartUploadsResult>"))
        }
    })
    .await;
    assert_eq!(server.bucket.abort_uploads(&Path::from("x y"), time("2026-02-01T00:00:00Z")).await.unwrap(), 2);
    let list = "GET /bucket?uploads=&prefix=some%2Fprefix%2Fx%20y%2F";
    assert_eq!(
        server.asked(),
        [
            format!("{list}&key-marker=&upload-id-marker="),
            "DELETE /bucket/some/prefix/a%20b?uploadId=u%2F1%2B".to_owned(),
            format!("{list}&key-marker=some%2Fprefix%2Fb&upload-id-marker=young"),
            "DELETE /bucket/some/prefix/c?uploadId=gone".to_owned(),
            "DELETE /bucket/some/prefix/d?uploadId=u2".to_owned(),
        ]
    );
}

/// Three versions of `a` and one marker, newest first, and one of `a/b`; `2` is locked, `3` is held.
fn versions(request: &str) -> (u16, String) {
    let locked = request.contains("versionId=2") || request.contains("versionId=3");
    if request.starts_with("DELETE") {
        return if locked { refusal(403, "AccessDenied") } else { (204, String::new()) };
    }
    if request.contains("?legal-hold") && request.contains("versionId=3") {
        return (200, "<LegalHold><Status>ON</Status></LegalHold>".to_owned());
    }
    if request.contains("?retention") && request.contains("versionId=2") {
        let until = "<RetainUntilDate>2027-01-01T00:00:00Z</RetainUntilDate>";
        return (200, format!("<Retention><Mode>COMPLIANCE</Mode>{until}</Retention>"));
    }
    if !request.contains("?versions") {
        return refusal(404, "NoSuchObjectLockConfiguration");
    }
    let key = if request.contains("prefix%2Fheld") { "held" } else { "a" };
    let newest = if key == "held" { "3" } else { "4" };
    let version = |kind: &str, key: &str, id: &str| {
        format!("<{kind}><Key>some/prefix/{key}</Key><VersionId>{id}</VersionId></{kind}>")
    };
    let all = version("DeleteMarker", key, "9")
        + &version("Version", key, newest)
        + &version("Version", key, "2")
        + &version("Version", key, "1")
        + &version("Version", &format!("{key}/b"), "7");
    (200, format!("<ListVersionsResult>{all}<IsTruncated>false</IsTruncated></ListVersionsResult>"))
}

#[tokio::test]
async fn what_is_locked_is_a_state_and_stays_hidden_or_visible() {
    let server = Server::start(versions).await;
    let until = Some(time("2027-01-01T00:00:00Z"));
    assert_eq!(server.bucket.delete_versions(OPERATION, &Path::from("a")).await.unwrap(), Deleted::Locked { until });
    let asked = server.asked();
    let deleted: Vec<_> = asked.iter().filter(|request| request.starts_with("DELETE")).collect();
    // The oldest first, the marker not at all, nothing of another object.
    let path = "DELETE /bucket/some/prefix/a?versionId=";
    assert_eq!(deleted, [&format!("{path}1"), &format!("{path}2"), &format!("{path}4")]);
    // A hold has no end, so it counts more than a lock that has one.
    let held = server.bucket.delete_versions(OPERATION, &Path::from("held")).await.unwrap();
    assert_eq!(held, Deleted::Locked { until: None });
}

#[tokio::test]
async fn a_refusal_without_a_lock_is_an_error_without_the_servers_words() {
    let server = Server::start(|request| match request.contains("?versions") {
        true => versions("GET ?versions"),
        false if request.starts_with("DELETE") => refusal(403, "AccessDenied"),
        false => refusal(404, "NoSuchObjectLockConfiguration"),
    })
    .await;
    let error = server.bucket.delete_versions(OPERATION, &Path::from("a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    let shown = format!("{error:?} {}", error.chain());
    assert!(shown.contains("AccessDenied") && !shown.contains("hunter2"), "{shown}");
}

#[tokio::test]
async fn locks_are_asked_for_in_whole_seconds() {
    let server = Server::start(|request| match request.starts_with("PUT") {
        true => (200, String::new()),
        false => refusal(404, "NoSuchKey"),
    })
    .await;
    let (path, until) = (Path::from("a"), time("2027-01-01T00:00:00.5Z"));
    server.bucket.retain_until(OPERATION, &path, until, ObjectLockMode::Governance).await.unwrap();
    let [request] = &server.asked()[..] else { panic!("more than one request") };
    let body = "<Mode>GOVERNANCE</Mode><RetainUntilDate>2027-01-01T00:00:01Z</RetainUntilDate></Retention>";
    assert!(request.starts_with("PUT /bucket/some/prefix/a?retention= ") && request.ends_with(body), "{request}");
    let missing = server.bucket.locked_until(OPERATION, &path).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn refusals_have_their_kinds_and_what_may_pass_is_asked_again() {
    let kinds = [
        (refusal as fn(u16, &str) -> (u16, String), 403, "SignatureDoesNotMatch", ErrorKind::Unauthenticated),
        (refusal, 400, "ExpiredToken", ErrorKind::Unauthenticated),
        (refusal, 403, "RequestTimeTooSkewed", ErrorKind::Unauthenticated),
        (refusal, 404, "NoSuchBucket", ErrorKind::NotFound),
        (refusal, 501, "NotImplemented", ErrorKind::Unsupported),
        (refusal, 503, "SlowDown", ErrorKind::Saturated),
        (|_, _| (500, "a proxy's own words".to_owned()), 500, "", ErrorKind::Io),
    ];
    static NOW: Mutex<(u16, String)> = Mutex::new((0, String::new()));
    let server = Server::start(|_| NOW.lock().unwrap().clone()).await;
    for (make, status, code, kind) in kinds {
        *NOW.lock().unwrap() = make(status, code);
        let error = server.bucket.greet().await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert_eq!(server.asked().len(), 1, "a greeting is not repeated");
    }
    // Two failures, then the answer.
    static LEFT: Mutex<u32> = Mutex::new(2);
    let server = Server::start(|request| {
        let mut left = LEFT.lock().unwrap();
        if *left > 0 {
            *left -= 1;
            return refusal(503, "SlowDown");
        }
        match request.contains("versioning") {
            true => (200, "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>".to_owned()),
            false => refusal(404, "ObjectLockConfigurationNotFoundError"),
        }
    })
    .await;
    let nature = server.bucket.nature().await.unwrap();
    assert!(nature.versioning && !nature.object_lock);
    assert_eq!(server.asked().len(), 4);
    server.bucket.nature().await.unwrap();
    assert!(server.asked().is_empty(), "it is asked once");
}
