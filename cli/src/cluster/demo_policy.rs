//! The policy that `partita dev` writes if it is given none: two teams, and data for the first of them.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use partita_types::DatasetName;
use toml::{Table, Value};

use crate::files::{Readers, private_directory, replace};

/// `NAME=PATH` or `NAME=PATH:*.ext`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DatasetArgument {
    name: DatasetName,
    location: PathBuf,
    include: Option<String>,
}

impl FromStr for DatasetArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, rest) = text.split_once('=').ok_or("write NAME=PATH or NAME=PATH:*.ext")?;
        let name = DatasetName::new(name).map_err(|error| error.to_string())?;
        // Only what has a star is a pattern, because paths may have colons.
        let pattern = rest.rsplit_once(':').filter(|(_, pattern)| pattern.contains('*'));
        let (path, include) = pattern.map_or((rest, None), |(path, pattern)| (path, Some(pattern.to_owned())));
        let location = Path::new(path).canonicalize().map_err(|error| format!("cannot find {path}: {error}"))?;
        Ok(Self { name, location, include })
    }
}

/// Writes the policy into `directory`, unless there is one and nothing new to say.
pub(crate) fn write(directory: &Path, datasets: &[DatasetArgument]) -> anyhow::Result<()> {
    private_directory(directory)?;
    let path = directory.join("dev.toml");
    if datasets.is_empty() && path.exists() {
        return Ok(());
    }
    replace(&path, &text(datasets)?, Readers::Everybody)
}

fn text(datasets: &[DatasetArgument]) -> anyhow::Result<String> {
    let dataset = |dataset: &DatasetArgument| {
        let location = dataset.location.display().to_string();
        let mut table = Table::from_iter([
            ("name".to_owned(), Value::from(dataset.name.as_str())),
            ("location".to_owned(), Value::from(location)),
        ]);
        if let Some(include) = &dataset.include {
            table.insert("include".to_owned(), Value::Array(vec![Value::from(include.as_str())]));
        }
        Value::Table(table)
    };
    let mut analytics = Table::from_iter([("weight".to_owned(), Value::from(2))]);
    if !datasets.is_empty() {
        analytics.insert("dataset".to_owned(), Value::Array(datasets.iter().map(dataset).collect()));
    }
    let tenants = Table::from_iter([
        ("analytics".to_owned(), Value::Table(analytics)),
        ("research".to_owned(), Value::Table(Table::new())),
    ]);
    let file = Table::from_iter([("tenant".to_owned(), Value::Table(tenants))]);
    Ok(format!("# Written by `partita dev`, and again whenever it is given a --dataset.\n{}", toml::to_string(&file)?))
}

#[cfg(test)]
mod tests {
    use partita_policy::PolicySet;
    use partita_types::TenantName;

    use super::*;

    #[test]
    fn the_policy_is_one_that_the_scheduler_accepts() {
        let directory = tempfile::tempdir().unwrap();
        let argument = format!("crates={}:*.rs", directory.path().display());
        let text = text(&[argument.parse().unwrap()]).unwrap();
        let policies = PolicySet::parse(&[("dev.toml", text)]).unwrap();
        let analytics = policies.get(&TenantName::new("analytics").unwrap()).unwrap();
        assert_eq!(analytics.datasets[0].name.as_str(), "crates");
        assert_eq!(analytics.datasets[0].include, ["*.rs"]);
        assert!(policies.get(&TenantName::new("research").unwrap()).unwrap().datasets.is_empty());
    }

    #[test]
    fn a_policy_stays_until_there_is_other_data() {
        let directory = tempfile::tempdir().unwrap();
        let policies = directory.path().join("policies");
        let path = policies.join("dev.toml");
        write(&policies, &[]).unwrap();
        std::fs::write(&path, "[tenant.mine]\n").unwrap();
        write(&policies, &[]).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "[tenant.mine]\n");
        write(&policies, &[format!("d={}", directory.path().display()).parse().unwrap()]).unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().contains("name = \"d\""));
    }

    #[test]
    fn a_dataset_needs_a_name_and_a_path_that_exists() {
        assert_eq!("crates".parse::<DatasetArgument>(), Err("write NAME=PATH or NAME=PATH:*.ext".into()));
        assert!("a=/no/such/path".parse::<DatasetArgument>().unwrap_err().starts_with("cannot find /no/such/path"));
        assert!("A B=/".parse::<DatasetArgument>().is_err());
        assert_eq!("a=/".parse::<DatasetArgument>().unwrap().include, None);
    }
}
