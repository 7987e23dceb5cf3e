// Keeps the page for when there is no network. The build puts the version and the list of files in.
const CACHE = "kosmos-__VERSION__";
const FILES = __FILES__;
/** A network that takes longer than this is none. */
const PATIENCE_MS = 4000;

addEventListener("install", (event) => {
  const keep = async () => {
    const cache = await caches.open(CACHE);
    await cache.addAll(FILES.map((file) => new Request(file, isImmutable(file) ? {} : { cache: "no-cache" })));
  };
  event.waitUntil(keep());
});

// An older page may still be open; it keeps its own version until it is closed.
addEventListener("activate", (event) => {
  const tidy = async () => {
    const names = (await caches.keys()).filter((name) => name.startsWith("kosmos-") && name !== CACHE);
    await Promise.all(names.map((name) => caches.delete(name)));
    await clients.claim();
  };
  event.waitUntil(tidy());
});

addEventListener("fetch", (event) => {
  const { request } = event;
  const scope = new URL(registration.scope);
  if (request.method !== "GET" || !request.url.startsWith(scope.href) || request.headers.has("range")) return;
  const path = request.url.slice(scope.href.length);
  if (path.startsWith("api/") || path.startsWith("health")) return;
  event.respondWith(isImmutable(path) ? cacheFirst(request) : networkFirst(request));
});

/** Addresses that carry a hash of what is behind them. */
function isImmutable(path) {
  return path.startsWith("app/") || path.includes("?v=");
}

async function cacheFirst(request) {
  return (await kept(request, {})) ?? fetch(request);
}

async function networkFirst(request) {
  try {
    return await fetch(request, { signal: AbortSignal.timeout(PATIENCE_MS) });
  } catch {
    return (await kept(request, { ignoreSearch: true })) ?? Response.error();
  }
}

async function kept(request, options) {
  const cache = await caches.open(CACHE);
  // Answers vary by the request's origin and encodings, which differ between a script and what was asked for in advance.
  return cache.match(request, { ignoreVary: true, ...options });
}
