//! The page's files, and what every answer tells a browser about caching and safety.

use std::path::Path;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use tower_http::cors::{AllowOrigin, CorsLayer};
use tower_http::services::ServeDir;

/// What a page may load: only what this server has. wasm needs its own word.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; \
     style-src 'self' 'unsafe-inline'; img-src 'self' blob: data:; connect-src 'self' blob: data:; \
     worker-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const SECURITY_HEADERS: [(HeaderName, &str); 4] = [
    (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Fewest hexadecimal digits that count as the hash of a file's contents.
const HASH_DIGITS: usize = 8;

/// Serves the built page in `dir`, files beside which a `.br` or `.gz` lies in that form where the browser takes it.
/// `router` answers what is not there.
pub fn with_page<S: Clone + Send + Sync + 'static>(router: Router<S>, dir: &Path, missing: Router) -> Router<S> {
    let files = ServeDir::new(dir).precompressed_br().precompressed_gzip().fallback(missing);
    router.fallback_service(Router::new().fallback_service(files).layer(middleware::from_fn(cache)))
}

/// Adds the headers that every answer has.
pub async fn secure(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    for (name, value) in SECURITY_HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Lets the pages of these origins, besides this server's own, send jobs and fetch bundles.
pub fn allow_origins(origins: &[HeaderValue]) -> CorsLayer {
    let headers =
        [header::CONTENT_TYPE, header::RANGE, header::IF_NONE_MATCH, HeaderName::from_static("last-event-id")];
    let exposed = [header::CONTENT_RANGE, header::CONTENT_LENGTH, header::ETAG, header::RETRY_AFTER];
    CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins.iter().cloned()))
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        .allow_headers(headers)
        .expose_headers(exposed)
        // A page from the open internet may ask a server at home, if the person who runs it names that page.
        .allow_private_network(true)
}

/// A file whose name has the hash of its contents never changes; any other is asked for again each time, which costs a
/// few bytes while it has not changed.
async fn cache(request: Request, next: Next) -> Response {
    let immutable = is_hashed(request.uri().path());
    let mut response = next.run(request).await;
    let value = match immutable && response.status().is_success() {
        true => "public, max-age=31536000, immutable",
        false => "no-cache",
    };
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static(value));
    response.headers_mut().append(header::VARY, HeaderValue::from_static("accept-encoding"));
    response
}

/// Whether a folder or file of the path has a hash in its name, as in `assets-0123abcd/app.js` and `app.0123abcd.js`.
fn is_hashed(path: &str) -> bool {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let mut words = path.split(['/', '.', '-', '_']);
    words.any(|word| word.len() >= HASH_DIGITS && word.bytes().all(is_digit))
}

#[cfg(test)]
mod tests {
    use super::is_hashed;

    #[test]
    fn hashes_are_told_from_words() {
        for path in ["/app-0123456789abcdef.js", "/a/app_bg.00ff00ff.wasm", "/assets-deadbeef/ui.js", "/00ff00ff/ui.js"]
        {
            assert!(is_hashed(path), "{path}");
        }
        for path in ["/", "/index.html", "/sw.js", "/app-1234.js", "/interface.css", "/icon-180.png"] {
            assert!(!is_hashed(path), "{path}");
        }
    }
}
