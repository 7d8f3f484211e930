//! The keys of a policy file. The JSON schema is made from these types and their comments.

use std::collections::BTreeMap;
use std::time::Duration;

use partita_types::{ByteSize, Isolation, MilliCpu};
use schemars::JsonSchema;
use toml::de::DeTable;

use crate::document::Section;
use crate::fault::Faults;
use crate::setting::{Count, Found, Setting};

/// Policies of one or several tenants. Only what differs from the defaults has to be written.
#[derive(Debug, JsonSchema)]
#[schemars(title = "Partita policies", deny_unknown_fields)]
pub(crate) struct PolicyFile {
    /// The tenants of this file, by name: `[tenant.acme]`. A tenant stands in one file only.
    #[schemars(default, extend("propertyNames" = { "pattern": "^[a-z0-9][a-z0-9._-]{0,62}$" }))]
    pub(crate) tenant: BTreeMap<String, TenantFile>,
}

/// What one tenant may use.
#[derive(Debug, Default, JsonSchema)]
#[schemars(rename = "Tenant", default, deny_unknown_fields)]
pub(crate) struct TenantFile {
    /// Where the tenant's name stands in the file.
    #[schemars(skip)]
    pub(crate) at: usize,
    /// Share of the cluster in relation to the weights of other tenants. Default 1, at most 1000.
    pub(crate) weight: Setting<Count>,
    /// Hosts that confine tasks less are not used: `process`, `seccomp` or `full`. Default `seccomp`.
    pub(crate) minimum_isolation: Setting<Isolation>,
    /// Longest life of a token. Default 12 hours, at most 24.
    pub(crate) token_lifetime: Setting<Duration>,
    /// How long a task may wait while no attached host could run it, before it fails. Default 10 minutes, at most 30 days.
    pub(crate) unrunnable_after: Setting<Duration>,
    /// How long results are kept after their job ended, at most ten years. Default: until they are released.
    pub(crate) retention: Setting<Duration>,
    /// Hard limits over all jobs and hosts.
    pub(crate) quota: QuotaFile,
    /// What one attempt of a task may use if the job says nothing.
    pub(crate) defaults: LimitsFile,
    /// The most that a job may ask for one attempt of a task.
    pub(crate) maxima: LimitsFile,
    /// Data on the hosts that tasks may read.
    pub(crate) dataset: Vec<DatasetFile>,
    /// The tenants with which it lends and borrows. All tenants that name none are one cohort, too.
    pub(crate) cohort: Setting<String>,
    /// What the tenant gets as soon as it has work, whatever others do.
    pub(crate) guaranteed: ResourcesFile,
    /// The most that it uses beyond its guarantee. Default: no bound but its quota.
    pub(crate) borrow: ResourcesFile,
    /// The most of its guarantee that its cohort uses while it does not. Default: all of it.
    pub(crate) lend: ResourcesFile,
}

/// Hard limits of a tenant over all jobs and hosts.
#[derive(Debug, Default, JsonSchema)]
#[schemars(rename = "Quota", default, deny_unknown_fields)]
pub(crate) struct QuotaFile {
    /// CPU of all tasks together, in cores. A task keeps one busy at most, so 2.5 allows three tasks at once, which hosts
    /// hold to two and a half cores together. Default: no further bound; at least 0.01.
    pub(crate) cpu: Setting<MilliCpu>,
    /// Tasks that have not ended, of all jobs together. Default 10,000,000.
    pub(crate) queued_tasks: Setting<Count>,
    /// Jobs that have not ended. Default 1000.
    pub(crate) running_jobs: Setting<Count>,
    /// Tasks handed to hosts at once. Default 4096.
    pub(crate) concurrent_tasks: Setting<Count>,
    /// Memory limits of these tasks together. Default 256 GiB.
    pub(crate) concurrent_memory: Setting<ByteSize>,
    /// Partitions stored on all hosts together. Default 64 GiB.
    pub(crate) stored: Setting<ByteSize>,
    /// Modules kept. Default 100.
    pub(crate) modules: Setting<Count>,
    /// Size of one module. Default 32 MiB, at most 256 MiB.
    pub(crate) module_size: Setting<ByteSize>,
}

/// What one attempt of a task may use.
#[derive(Debug, Default, JsonSchema)]
#[schemars(rename = "Limits", default, deny_unknown_fields)]
pub(crate) struct LimitsFile {
    /// Memory of the task. 256 MiB by default; jobs may ask for 4 GiB.
    pub(crate) memory: Setting<ByteSize>,
    /// CPU time. One minute by default; jobs may ask for an hour.
    pub(crate) cpu_time: Setting<Duration>,
    /// Time from start to end. Ten minutes by default; jobs may ask for a day.
    pub(crate) wall_time: Setting<Duration>,
    /// All outputs together. 256 MiB by default; jobs may ask for 4 GiB.
    pub(crate) output: Setting<ByteSize>,
    /// Log lines together; more is cut. 64 KiB by default; jobs may ask for 1 MiB.
    pub(crate) log: Setting<ByteSize>,
}

/// An amount of each resource that tenants share.
#[derive(Debug, Default, JsonSchema)]
#[schemars(rename = "Resources", default, deny_unknown_fields)]
pub(crate) struct ResourcesFile {
    /// Cores.
    pub(crate) cpu: Setting<MilliCpu>,
    /// Memory of running tasks.
    pub(crate) memory: Setting<ByteSize>,
    /// Partitions on all hosts together.
    pub(crate) stored: Setting<ByteSize>,
}

/// A directory or file on the hosts that tasks may read.
#[derive(Debug, JsonSchema)]
#[schemars(rename = "Dataset", deny_unknown_fields)]
pub(crate) struct DatasetFile {
    /// Path of this entry in messages.
    #[schemars(skip)]
    pub(crate) path: String,
    /// The name that jobs use.
    pub(crate) name: Setting<String>,
    /// Absolute path on the hosts.
    pub(crate) location: Setting<String>,
    /// Which files of a directory, by file name: `*` stands for any bytes, `?` for one. Default: all.
    #[schemars(default)]
    pub(crate) include: Setting<Vec<Found<String>>>,
}

/// The JSON schema of policy files, for editors that check while one types.
#[must_use]
pub fn json_schema() -> String {
    let schema = schemars::schema_for!(PolicyFile);
    // A schema is a JSON value already, and printing one cannot fail.
    format!("{:#}\n", schema.as_value())
}

impl PolicyFile {
    /// Reads all keys of a document.
    pub(crate) fn read(document: &DeTable<'_>, faults: &mut Faults<'_>) -> Self {
        let mut root = Section::new(String::new(), 0, document);
        let mut tenants = BTreeMap::new();
        if let Some(section) = root.section("tenant", faults) {
            for (name, section) in section.named(faults) {
                tenants.insert(name.value, TenantFile::read(name.at, section, faults));
            }
        }
        root.finish(faults);
        Self { tenant: tenants }
    }
}

impl TenantFile {
    fn read(at: usize, mut section: Section<'_, '_>, faults: &mut Faults<'_>) -> Self {
        let tenant = Self {
            at,
            weight: section.setting("weight", faults),
            minimum_isolation: section.setting("minimum_isolation", faults),
            token_lifetime: section.setting("token_lifetime", faults),
            unrunnable_after: section.setting("unrunnable_after", faults),
            retention: section.setting("retention", faults),
            quota: section.section("quota", faults).map(|quota| QuotaFile::read(quota, faults)).unwrap_or_default(),
            defaults: LimitsFile::read(section.section("defaults", faults), faults),
            maxima: LimitsFile::read(section.section("maxima", faults), faults),
            dataset: section
                .sections("dataset", faults)
                .into_iter()
                .map(|dataset| DatasetFile::read(dataset, faults))
                .collect(),
            cohort: section.setting("cohort", faults),
            guaranteed: ResourcesFile::read(section.section("guaranteed", faults), faults),
            borrow: ResourcesFile::read(section.section("borrow", faults), faults),
            lend: ResourcesFile::read(section.section("lend", faults), faults),
        };
        section.finish(faults);
        tenant
    }
}

impl QuotaFile {
    fn read(mut section: Section<'_, '_>, faults: &mut Faults<'_>) -> Self {
        let quota = Self {
            cpu: section.setting("cpu", faults),
            queued_tasks: section.setting("queued_tasks", faults),
            running_jobs: section.setting("running_jobs", faults),
            concurrent_tasks: section.setting("concurrent_tasks", faults),
            concurrent_memory: section.setting("concurrent_memory", faults),
            stored: section.setting("stored", faults),
            modules: section.setting("modules", faults),
            module_size: section.setting("module_size", faults),
        };
        section.finish(faults);
        quota
    }
}

impl LimitsFile {
    fn read(section: Option<Section<'_, '_>>, faults: &mut Faults<'_>) -> Self {
        let Some(mut section) = section else { return Self::default() };
        let limits = Self {
            memory: section.setting("memory", faults),
            cpu_time: section.setting("cpu_time", faults),
            wall_time: section.setting("wall_time", faults),
            output: section.setting("output", faults),
            log: section.setting("log", faults),
        };
        section.finish(faults);
        limits
    }
}

impl ResourcesFile {
    fn read(section: Option<Section<'_, '_>>, faults: &mut Faults<'_>) -> Self {
        let Some(mut section) = section else { return Self::default() };
        let resources = Self {
            cpu: section.setting("cpu", faults),
            memory: section.setting("memory", faults),
            stored: section.setting("stored", faults),
        };
        section.finish(faults);
        resources
    }
}

impl DatasetFile {
    fn read(mut section: Section<'_, '_>, faults: &mut Faults<'_>) -> Self {
        let dataset = Self {
            path: section.path().to_owned(),
            name: section.required("name", faults),
            location: section.required("location", faults),
            include: section.setting("include", faults),
        };
        section.finish(faults);
        dataset
    }
}
