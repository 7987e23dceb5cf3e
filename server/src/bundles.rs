//! The bundles of a folder, the LoRAs beside them, and the bundles' files for whoever runs a part of a model elsewhere.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, Request, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use kosmosg::bundle::{BundleError, Folder, MANIFEST, Manifest, PartFile, Scope};
use kosmosg::protocol::{BundleEntry, JobRequest, Lora};
use kosmosg::schedule::NoiseSchedule;
use kosmosg::tokenizer::Tokenizer;
use tower::ServiceExt;
use tower_http::services::ServeFile;

use crate::error::Error;
use crate::loras::Loras;
use crate::page::{HASH_DIGITS, IMMUTABLE};

/// Folder of the LoRAs, beside the bundles.
const LORAS: &str = "loras";

/// The bundles that a server has, by id, and the LoRAs that can change them.
#[derive(Debug)]
pub struct Bundles {
    by_id: BTreeMap<String, Arc<Bundle>>,
    loras: Loras,
}

/// A bundle and what checking a request needs of it.
#[derive(Debug)]
pub struct Bundle {
    id: String,
    dir: PathBuf,
    folder: Folder,
    unet: String,
    schedule: NoiseSchedule,
    tokenizer: Tokenizer,
}

/// Why there are no bundles.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundlesError {
    /// The folder cannot be read.
    #[error("the folder of bundles {}: {source}", dir.display())]
    Io {
        /// The folder.
        dir: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Nothing in it is a bundle that can be used.
    #[error("{} has no bundle that can be used: expected `{MANIFEST}` in it or in a folder of it{}", dir.display(), broken.join(""))]
    None {
        /// The folder.
        dir: PathBuf,
        /// What looked like a bundle, and what is wrong with it.
        broken: Vec<String>,
    },
}

/// Why a folder that looks like a bundle is left out.
#[derive(Debug, thiserror::Error)]
enum OpenError {
    /// Its name cannot be part of an address.
    #[error(
        "the folder's name is the model's name in addresses, and may have only the letters A-Z and a-z, digits, `-`, `_` \
         and, but not first, `.`; rename the folder"
    )]
    Name,
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

impl Bundles {
    /// Opens `dir`: a bundle, or a folder of bundles. One that cannot be used is logged and left out. A folder `loras` in it has
    /// LoRAs.
    ///
    /// # Errors
    /// A [`BundlesError`] if none is left.
    pub fn open(dir: &Path) -> Result<Self, BundlesError> {
        let io = |source| BundlesError::Io { dir: dir.to_owned(), source };
        // `.` has no name, but the folder that it stands for has.
        let dir = dir.canonicalize().map_err(io)?;
        let mut candidates = vec![dir.clone()];
        if !dir.join(MANIFEST).is_file() {
            let entries = dir.read_dir().map_err(io)?;
            candidates = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
            candidates.retain(|path| path.join(MANIFEST).is_file());
        }
        let mut bundles = BTreeMap::new();
        let mut broken = Vec::new();
        for candidate in candidates.into_iter().filter(|path| path.join(MANIFEST).is_file()) {
            match Bundle::open(&candidate) {
                Ok(bundle) => {
                    bundles.insert(bundle.id.clone(), Arc::new(bundle));
                }
                Err(error) => {
                    tracing::warn!("{} is left out: {error}", candidate.display());
                    broken.push(format!("\n  {}: {error}", candidate.display()));
                }
            }
        }
        if bundles.is_empty() {
            return Err(BundlesError::None { dir, broken });
        }
        let loras = dir.join(LORAS);
        let loras = if loras.is_dir() { Loras::open(&loras).map_err(io)? } else { Loras::default() };
        Ok(Self { by_id: bundles, loras })
    }

    /// The same with other LoRAs.
    pub fn with_loras(self, loras: Loras) -> Self {
        Self { loras, ..self }
    }

    /// The LoRAs.
    pub fn loras(&self) -> &Loras {
        &self.loras
    }

    /// The bundle called `id`.
    ///
    /// # Errors
    /// 404.
    pub fn get(&self, id: &str) -> Result<&Arc<Bundle>, Error> {
        self.by_id.get(id).ok_or_else(|| {
            let ids: Vec<_> = self.by_id.keys().map(String::as_str).collect();
            Error::not_found(format!("there is no bundle {id:?}; there is {}", ids.join(", ")))
        })
    }

    /// The bundle called `id`, or the first where none is asked for.
    ///
    /// # Errors
    /// 404.
    pub fn get_or_first(&self, id: Option<&str>) -> Result<&Arc<Bundle>, Error> {
        match id {
            Some(id) => self.get(id),
            None => self.iter().next().ok_or_else(|| Error::not_found("this server has no bundle")),
        }
    }

    /// Whether the bundle and the LoRAs of a request are here.
    pub fn suffice_for(&self, request: &JobRequest) -> bool {
        let has_lora = |lora: &Lora| self.loras.names().any(|name| name == lora.name);
        self.by_id.contains_key(request.bundle()) && request.loras().iter().all(has_lora)
    }

    /// All of them, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Bundle>> {
        self.by_id.values()
    }

    /// What there is.
    pub fn entries(&self) -> Vec<BundleEntry> {
        self.by_id.values().map(|bundle| bundle.entry()).collect()
    }
}

impl Bundle {
    fn open(dir: &Path) -> Result<Self, OpenError> {
        let id = dir.file_name().and_then(|name| name.to_str()).filter(|name| is_plain(name)).ok_or(OpenError::Name)?;
        let folder = Folder::open(dir)?;
        let manifest = folder.manifest();
        let (schedule, unet) = (manifest.schedule()?, manifest.part("unet")?.sha256());
        let mllm = &manifest.networks.kosmosg;
        let tokenizer = Tokenizer::from_json(&folder.tokenizer()?, mllm.mllm.vocab_size, &mllm.special)
            .map_err(BundleError::Tokenizer)?;
        Ok(Self { id: id.to_owned(), dir: dir.to_owned(), unet, schedule, tokenizer, folder })
    }

    /// Its name in requests.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its manifest.
    pub fn manifest(&self) -> &Manifest {
        self.folder.manifest()
    }

    /// Where its weights are.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Version of its U-Net: [`Part::sha256`](kosmosg::bundle::Part::sha256).
    pub fn unet(&self) -> &str {
        &self.unet
    }

    /// Its noise schedule.
    pub fn schedule(&self) -> &NoiseSchedule {
        &self.schedule
    }

    /// Its tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    fn entry(&self) -> BundleEntry {
        let manifest = self.manifest();
        let bytes = |scope| manifest.files(scope).map(|file| file.bytes).sum();
        BundleEntry {
            id: self.id.clone(),
            name: manifest.name.clone(),
            bytes: bytes(Scope::Picture),
            encoder_bytes: bytes(Scope::Encoder),
            unet: self.unet.clone(),
        }
    }

    /// Answers a request for the file called `name`, or for a range of it. The manifest says which names there are, so
    /// that nothing else can be reached.
    ///
    /// # Errors
    /// 404 for a file that the manifest does not name or that is not there.
    pub async fn serve(&self, name: &str, request: Request<Body>) -> Result<Response, Error> {
        let tag = self.tag(name)?;
        let (mut parts, _) = request.into_parts();
        let cache = if tag.as_ref().is_some_and(|tag| asks_for(&parts.uri, tag)) { IMMUTABLE } else { "no-cache" };
        if let Some(tag) = &tag {
            if parts.headers.get(header::IF_NONE_MATCH) == Some(tag) {
                return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag.clone())]).into_response());
            }
            // The rest of another version would not fit what the client has.
            if parts.headers.get(header::IF_RANGE).is_some_and(|version| version != tag) {
                parts.headers.remove(header::RANGE);
            }
        }
        let served = ServeFile::new(self.dir.join(name)).oneshot(Request::from_parts(parts, Body::empty())).await;
        let mut response = served.map_err(Error::internal)?.map(Body::new);
        let status = response.status();
        let headers = response.headers_mut();
        if status == StatusCode::NOT_FOUND {
            let message = format!("the file {name} of the bundle {} is missing on the server", self.id);
            return Err(Error::not_found(message));
        }
        if status == StatusCode::RANGE_NOT_SATISFIABLE {
            let end = headers.remove(header::CONTENT_RANGE).map(|end| [(header::CONTENT_RANGE, end)]);
            return Ok(end.map_or_else(|| Error::range().into_response(), |end| (end, Error::range()).into_response()));
        }
        headers.extend(tag.map(|tag| (header::ETAG, tag)));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
        Ok(response)
    }

    /// The version of a file: its contents' hash, which only the manifest itself lacks.
    fn tag(&self, name: &str) -> Result<Option<HeaderValue>, Error> {
        let manifest = self.manifest();
        let mut files = manifest.parts.values().flat_map(|part| &part.files).chain([&manifest.tokenizer]);
        match files.find(|file| file.name == name) {
            Some(PartFile { sha256, .. }) => Ok(HeaderValue::from_str(&format!("\"{sha256}\"")).ok()),
            None if name == MANIFEST => Ok(None),
            None => Err(Error::not_found(format!("the bundle {} has no file {name:?}", self.id))),
        }
    }
}

/// Whether an address asks for this version and no other: by `?v=` and the beginning of the contents' hash.
fn asks_for(uri: &Uri, tag: &HeaderValue) -> bool {
    let version = uri.query().and_then(|query| query.split('&').find_map(|pair| pair.strip_prefix("v=")));
    let hash = tag.to_str().unwrap_or_default().trim_matches('"');
    version.is_some_and(|version| version.len() >= HASH_DIGITS && hash.starts_with(version))
}

fn is_plain(name: &str) -> bool {
    !name.starts_with('.') && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
}
