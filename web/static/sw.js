// Keeps the page for when there is no network. The build puts the version and the list of the page's own files in; which
// files the model has, its manifest says.
const CACHE = "kosmos-__VERSION__";
const FILES = __FILES__;
const MODEL = "models/tiny/";
/** What the page loads of a model. */
const PARTS = ["vision", "mllm", "aligner", "unet", "vae"];
/** A network that takes longer than this is none. */
const PATIENCE_MS = 4000;

addEventListener("install", (event) => {
  const keep = async () => {
    const cache = await caches.open(CACHE);
    const manifest = await fetch(`${MODEL}bundle.json`, { cache: "no-cache" });
    if (!manifest.ok) throw new Error(`${manifest.url}: ${manifest.status}`);
    // The very manifest that the list is made from.
    await cache.put(`${MODEL}bundle.json`, manifest.clone());
    const { tokenizer, parts } = await manifest.json();
    const model = [tokenizer, ...PARTS.flatMap((part) => parts[part].files)];
    // The GPU's program is large, and kept once it was used.
    const files = [...FILES.filter((file) => !file.includes("worker-gpu")), ...model.map(({ name, sha256 }) => `${MODEL}${name}?v=${sha256.slice(0, 16)}`)];
    await cache.addAll(files.map((file) => new Request(file, isImmutable(file) ? {} : { cache: "no-cache" })));
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
  event.respondWith(isImmutable(path) ? cacheFirst(event) : networkFirst(request));
});

/** Addresses that carry a hash of what is behind them. */
function isImmutable(path) {
  return path.startsWith("app/") || path.includes("?v=");
}

async function cacheFirst(event) {
  const { request } = event;
  const there = await kept(request, {});
  if (there) return there;
  const response = await fetch(request);
  if (response.ok) {
    const copy = response.clone();
    event.waitUntil(caches.open(CACHE).then((cache) => cache.put(request, copy)));
  }
  return response;
}

async function networkFirst(request) {
  const patience = new AbortController();
  const timer = setTimeout(() => patience.abort(), PATIENCE_MS);
  let response = Response.error();
  try {
    response = await fetch(request, { signal: patience.signal });
    // Something before the server may answer in its place, that it is not there; and a device that the server does not know
    // any more can still work with what is kept.
    if (response.status < 500 && response.status !== 401) return response;
  } catch {
    // No network.
  } finally {
    // An answer that has begun may take its time.
    clearTimeout(timer);
  }
  return (await kept(request, { ignoreSearch: true })) ?? response;
}

async function kept(request, options) {
  const cache = await caches.open(CACHE);
  // Answers vary by the request's origin and encodings, which differ between a script and what was asked for in advance.
  return cache.match(request, { ignoreVary: true, ...options });
}
