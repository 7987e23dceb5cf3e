//! Settings that are changed by name.

use std::fmt;
use std::str::FromStr;

use anyhow::Context as _;
use toml::{Table, Value};

/// One setting that is to be another one: `instruct.training.steps=4000`; or, with nothing after the equals sign, not to be there.
#[derive(Debug, Clone)]
pub struct Change {
    path: String,
    value: Option<Value>,
}

impl FromStr for Change {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (path, value) = text.split_once('=').ok_or("it has no `=`: write it as decoder.training.steps=4000")?;
        let path = path.trim().to_owned();
        let value = match value.trim() {
            "" => None,
            value => {
                let table: Table = format!("value = {value}").parse().map_err(|error: toml::de::Error| {
                    format!("`{value}` is no value of TOML ({}); texts stand in quotes", error.message())
                })?;
                table.into_iter().next().map(|(_, value)| value)
            }
        };
        Ok(Self { path, value })
    }
}

/// As it is written on the command line.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=", self.path)?;
        self.value.iter().try_for_each(|value| write!(f, "{value}"))
    }
}

impl Change {
    pub(super) fn apply(&self, table: &mut Table) -> anyhow::Result<()> {
        let mut table = table;
        let (folders, last) = self.path.rsplit_once('.').unwrap_or(("", &self.path));
        for name in folders.split('.').filter(|name| !name.is_empty()) {
            table = match table.get_mut(name) {
                Some(Value::Table(inner)) => inner,
                _ => anyhow::bail!("--set {}: the configuration has no [{name}]", self.path),
            };
        }
        match &self.value {
            Some(value) => table.insert(last.to_owned(), value.clone()),
            None => Some(table.remove(last).with_context(|| format!("--set {}: there is no such setting", self.path))?),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::train::TrainConfig;

    #[test]
    fn changes_are_told_as_they_were_given() {
        for text in ["instruct.training.steps=4000", "imitate=", r#"vae.trained=["vae.decoder."]"#] {
            assert_eq!(text.parse::<Change>().unwrap().to_string().replace(" ", ""), text);
        }
    }

    #[test]
    fn settings_can_be_changed_by_name() {
        let read = |changes: &[&str]| {
            let changes: Vec<Change> = changes.iter().map(|change| change.parse().unwrap()).collect();
            TrainConfig::read(Path::new("tiny"), &changes)
        };
        assert_eq!(read(&[]).unwrap(), TrainConfig::tiny());
        let config =
            read(&["instruct.training.steps=7", "imitate=", "decoder.trained = ['unet.']", "instruct.draws=2"])
                .unwrap();
        assert_eq!((config.instruct.training.steps, config.imitate, config.instruct.draws), (7, None, 2));
        assert_eq!(config.decoder.trained.unwrap(), ["unet."]);
        for (change, why) in [
            ("nonsense.steps=7", "no [nonsense]"),
            ("decoder.nonsense=", "no such setting"),
            ("decoder.nonsense=1", "do not fit"),
            ("decoder.draws='many'", "do not fit"),
        ] {
            let error = read(&[change]).unwrap_err().to_string();
            assert!(error.contains(why), "{change}: {error}");
        }
        for (change, why) in [
            ("decoder.training.checkpoint_every=0", "decoder.training.checkpoint_every is 0"),
            ("vae.training.batch=0", "vae.training.batch is 0"),
            ("lm.training.parts=0", "lm.training.parts is 0"),
            ("judge.training.samples=0", "judge.training.samples is 0"),
            ("instruct.draws=0", "instruct.draws is 0"),
            ("picture_size=60", "picture_size is 60, expected a multiple of 8"),
            ("networks.kosmosg.mllm.heads=5", "networks.kosmosg.mllm.heads is 5, expected a divisor"),
            ("networks.vae.block_out_channels=[]", "networks.vae.block_out_channels has 0 entries"),
            ("networks.text.max_position_embeddings=41", "expected 40, as networks.kosmosg.aligner.queries is"),
        ] {
            let error = format!("{:#}", read(&[change]).unwrap_err());
            assert!(error.starts_with("tiny cannot be trained") && error.contains(why), "{change}: {error}");
        }
        let without_sheets = read(&["vae.training.sheet_every=0"]).unwrap();
        assert_eq!(without_sheets.vae.training.sheet_every, 0);
        for change in ["decoder.draws", "decoder.draws=many"] {
            assert!(change.parse::<Change>().is_err(), "{change}");
        }
    }
}
