//! Settings that outlive a request: the model that a client has chosen for its further ones.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use axum::Json;
use axum::extract::{Request, State};
use axum::http::Extensions;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{by_title, read, title};
use crate::app::{Shared, owner};
use crate::desk::Desk;
use crate::error::Error;
use crate::jobs::Owner;

/// Owners whose choice of a model is remembered.
const MAX_CHOICES: usize = 1000;

/// Settings that outlive a request.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Options {
    pub(super) sd_model_checkpoint: Option<String>,
}

/// The models that owners have chosen with `options`, the last choice last.
#[derive(Debug, Default)]
pub(crate) struct Choices(Mutex<VecDeque<(Owner, String)>>);

impl Choices {
    fn of(&self, owner: &Owner) -> Option<String> {
        let choices = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        choices.iter().find(|(other, _)| other == owner).map(|(_, bundle)| bundle.clone())
    }

    fn set(&self, owner: Owner, bundle: String) {
        let mut choices = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        choices.retain(|(other, _)| *other != owner);
        choices.push_back((owner, bundle));
        if choices.len() > MAX_CHOICES {
            choices.pop_front();
        }
    }
}

/// The model that an owner has chosen.
pub(super) async fn chosen(shared: &Shared, owner: &Owner) -> Result<Option<String>, Error> {
    match &shared.app.jobs {
        Desk::Own(_) => Ok(shared.choices.of(owner)),
        Desk::Fleet(fleet) => fleet.chosen(owner).await.map_err(Error::store),
    }
}

pub(super) async fn options(State(shared): State<Shared>, extensions: Extensions) -> Result<Json<Value>, Error> {
    let chosen = chosen(&shared, &owner(&extensions)).await?;
    let bundle = shared.app.bundles.get_or_first(chosen.as_deref())?;
    Ok(Json(json!({
        "sd_model_checkpoint": title(bundle),
        "sd_checkpoint_hash": bundle.unet(),
        "samples_format": "png",
        "CLIP_stop_at_last_layers": 1,
    })))
}

/// Chooses the model of this client's further requests; the rest has no meaning here.
pub(super) async fn set_options(State(shared): State<Shared>, request: Request) -> Result<Json<Value>, Error> {
    let owner = owner(request.extensions());
    let body = shared.body(request).await?;
    if let Some(title) = read::<Options>(&body)?.sd_model_checkpoint {
        let bundle = by_title(&shared.app.bundles, &title)?;
        match &shared.app.jobs {
            Desk::Own(_) => shared.choices.set(owner, bundle),
            Desk::Fleet(fleet) => fleet.choose(&owner, &bundle).await.map_err(Error::store)?,
        }
    }
    Ok(Json(Value::Null))
}
