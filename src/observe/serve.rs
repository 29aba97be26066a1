//! `GET /metrics` on a local address, and nothing else.

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// More scrapers than this at a time wait in the kernel's queue.
const CONNECTIONS: usize = 8;
/// How long a client may take to send its request head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may live, so that a few idle ones cannot keep others out.
const CONNECTION_LIFE: Duration = Duration::from_secs(60);

/// Binds the address; a port that is taken is a configuration failure that names it.
pub async fn bind(address: SocketAddr) -> Outcome<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        Failure::new(Cause::Configuration, format!("listen on {address} (metrics.listen)"), error.to_string())
            .advise("choose another address, or stop the program that uses it")
    })
}

/// Answers scrapes for ever. Must run inside a `LocalSet`.
pub async fn serve(listener: TcpListener, page: Rc<dyn Fn() -> String>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let page = page.clone();
                tokio::task::spawn_local(async move {
                    // A scraper that breaks off, or is cut off here, is its own problem.
                    let _ = tokio::time::timeout(CONNECTION_LIFE, answer(stream, page)).await;
                    drop(slot);
                });
            }
            // Out of file descriptors, most likely: do not spin.
            Err(error) => {
                tracing::debug!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn answer(stream: TcpStream, page: Rc<dyn Fn() -> String>) -> hyper::Result<()> {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = respond(&request, &*page);
        async move { Ok::<_, Infallible>(response) }
    });
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_headers(64)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

fn respond<B>(request: &Request<B>, page: &dyn Fn() -> String) -> Response<Full<Bytes>> {
    let (status, body) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => (StatusCode::OK, page()),
        (_, "/metrics") => (StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned()),
        _ => (StatusCode::NOT_FOUND, "see /metrics\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let kind = if status == StatusCode::OK { kind } else { "text/plain; charset=utf-8" };
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(method: &str, path: &str) -> u16 {
        let request = Request::builder().method(method).uri(path).body(()).expect("request");
        respond(&request, &|| "x 1\n".to_owned()).status().as_u16()
    }

    #[test]
    fn only_get_metrics_is_answered() {
        assert_eq!(status("GET", "/metrics"), 200);
        assert_eq!(status("POST", "/metrics"), 405);
        assert_eq!(status("GET", "/"), 404);
        assert_eq!(status("GET", "/metrics/../etc"), 404);
    }
}
