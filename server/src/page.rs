//! The page's files, and what every answer tells a browser about caching and safety.

use std::path::Path;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, Method, Uri, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use tower_http::cors::{AllowOrigin, CorsLayer};
use tower_http::services::ServeDir;

/// What a page may load: only what this server has; a model, which is only numbers, also from elsewhere. wasm needs its own
/// word.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; \
     style-src 'self' 'unsafe-inline'; img-src 'self' blob: data:; \
     connect-src 'self' blob: data: https: http://localhost:* http://127.0.0.1:*; \
     worker-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const SECURITY_HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    // Without one to itself, a browser would not say that the form of a pairing comes from here.
    (header::REFERRER_POLICY, "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-embedder-policy"), "require-corp"),
];

/// Fewest hexadecimal digits that count as the hash of a file's contents.
pub const HASH_DIGITS: usize = 8;
/// How long what never changes may be kept.
pub const IMMUTABLE: &str = "public, max-age=31536000, immutable";

/// Serves the built page in `dir`, files beside which a `.br` or `.gz` lies in that form where the browser takes it.
/// `router` answers what is not there.
pub fn with_page<S: Clone + Send + Sync + 'static>(router: Router<S>, dir: &Path, missing: Router) -> Router<S> {
    let files = ServeDir::new(dir).precompressed_br().precompressed_gzip().fallback(missing);
    router.fallback_service(Router::new().fallback_service(files).layer(middleware::from_fn(cache)))
}

/// Adds the headers that every answer has; a policy that an answer brings stays.
pub async fn secure(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    for (name, value) in SECURITY_HEADERS {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// Lets the pages of these origins, besides this server's own, send jobs and fetch bundles.
pub fn allow_origins(origins: &[HeaderValue]) -> CorsLayer {
    let headers = [
        header::AUTHORIZATION,
        header::CONTENT_TYPE,
        header::RANGE,
        header::IF_NONE_MATCH,
        HeaderName::from_static("last-event-id"),
        HeaderName::from_static("idempotency-key"),
    ];
    let exposed = [header::CONTENT_RANGE, header::CONTENT_LENGTH, header::ETAG, header::RETRY_AFTER];
    CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins.iter().cloned()))
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        .allow_headers(headers)
        .expose_headers(exposed)
        // A page from the open internet may ask a server at home, if the person who runs it names that page.
        .allow_private_network(true)
}

/// An origin as a browser sends it: scheme and host in lower case, and a port that is not the scheme's own.
///
/// # Errors
/// What is expected, if it is none.
pub fn parse_origin(text: &str) -> Result<HeaderValue, String> {
    let explain = || format!("{text:?} is no origin; expected something like https://example.org");
    let uri: Uri = text.parse().map_err(|_| explain())?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return Err(explain()) };
    let usual_port = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return Err(explain()),
    };
    let host = authority.host().to_ascii_lowercase();
    let rest = authority.as_str().get(host.len()..).filter(|_| !host.is_empty()).ok_or_else(explain)?;
    // What stands before the host, as in `name@host`, has made the rest something else than a port.
    let port = match rest.strip_prefix(':') {
        None if rest.is_empty() => None,
        None => return Err(explain()),
        Some(port) => Some(port.parse::<u16>().map_err(|_| explain())?).filter(|&port| port != usual_port),
    };
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(explain());
    }
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    HeaderValue::from_str(&format!("{scheme}://{host}{port}")).map_err(|_| explain())
}

/// A file whose name has the hash of its contents never changes; any other is asked for again each time, which costs a
/// few bytes while it has not changed.
async fn cache(request: Request, next: Next) -> Response {
    let immutable = is_hashed(request.uri().path());
    let mut response = next.run(request).await;
    let value = match immutable && response.status().is_success() {
        true => IMMUTABLE,
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
    use super::{is_hashed, parse_origin};

    #[test]
    fn origins_are_written_as_browsers_send_them() {
        for (text, origin) in [
            ("https://example.org", "https://example.org"),
            ("HTTPS://Example.ORG/", "https://example.org"),
            ("https://example.org:443", "https://example.org"),
            ("http://example.org:80", "http://example.org"),
            ("http://example.org:443", "http://example.org:443"),
            ("http://192.168.1.5:08000", "http://192.168.1.5:8000"),
            ("http://[::1]:8080", "http://[::1]:8080"),
        ] {
            assert_eq!(parse_origin(text).unwrap(), origin, "{text}");
        }
        for text in [
            "example.org",
            "ftp://example.org",
            "https://example.org/page",
            "https://a@b",
            "http://a:b",
            "https://",
            "*",
        ] {
            let error = parse_origin(text).unwrap_err();
            assert!(error.contains("is no origin"), "{text}: {error}");
        }
    }

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
