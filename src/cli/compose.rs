//! How a world is put together: settings from the configuration, identity from the machine, adapters for the rest.

use super::{Global, trust};
use crate::adapters::{self, EarlyPorts, Opts, durable};
use clap::Args;
use kubestrap_core::config::settings::Settings;
use kubestrap_core::config::user_data::{self, UserData};
use kubestrap_core::config::{
    Effective, Installation, Layer, Place, Problem, Sources, environment, failure, load, load_install, sources,
};
use kubestrap_core::gate::{Gate, Open};
use kubestrap_core::identity::{self, Imds, Tell};
use kubestrap_core::model::cause::Outcome;
use kubestrap_core::model::names::Endpoint;
use kubestrap_core::node::{Event, Node, Observer, Silent};
use kubestrap_core::ports::Fetched;
use kubestrap_core::store::Store;
use kubestrap_core::world::World;
use std::path::Path;
use std::rc::Rc;

/// What EC2 takes as user-data, in bytes ("Run commands when you launch an EC2 instance": 16 KB, before base64).
const MAX_USER_DATA: u64 = 16 * 1024;

/// Reads the configuration and asks the machine who it is. On EC2 this waits for the metadata service, which is late
/// on some instances; elsewhere nothing is waited for.
pub async fn node(global: &Global, gate: Rc<dyn Gate>, observer: Rc<dyn Observer>) -> Outcome<Node> {
    let opts = opts(global);
    let early = adapters::early_ports(&opts)?;
    let layers = layers(global, &early, &observer).await?;
    let effective = load_all(layers).map_err(|problems| failure(&problems))?;
    let settings = Rc::new(effective.settings);
    let told = tell(&observer);
    let world = World::new(adapters::ports(&settings, &opts)?, gate, observer);
    let imds = Imds::new(world.metadata.clone(), world.time.clone()).telling(told);
    let identity = identity::discover(&world, &imds, settings.identity, &settings.node).await?;
    let rootfs = (global.root != Path::new("/")).then(|| global.root.to_string_lossy().into_owned());
    Ok(Node::new(settings, Rc::new(identity), world).below(rootfs))
}

/// The configuration in force, or every problem of it; the outer failure is for what could not be read at all.
pub async fn configuration(global: &Global, early: &EarlyPorts) -> Outcome<Result<Effective, Vec<Problem>>> {
    let nobody: Rc<dyn Observer> = Rc::new(Silent);
    Ok(load_all(layers(global, early, &nobody).await?))
}

/// What an installation works by: like [`configuration`], and a machine that has no role yet is none the worse for it.
pub async fn installation(global: &Global) -> Outcome<Installation> {
    let nobody: Rc<dyn Observer> = Rc::new(Silent);
    let layers = layers(global, &early(global)?, &nobody).await?;
    layers.map_err(|problem| vec![problem]).and_then(load_install).map_err(|problems| failure(&problems))
}

fn tell(observer: &Rc<dyn Observer>) -> Tell {
    let observer = observer.clone();
    Rc::new(move |failure| observer.on(&Event::Note(&format!("the metadata service is asked again: {failure}"))))
}

fn load_all(layers: Result<Vec<Layer>, Problem>) -> Result<Effective, Vec<Problem>> {
    layers.map_err(|problem| vec![problem]).and_then(load)
}

/// The same with the user-data of this file, which need not be this machine's: nothing is asked of anybody.
pub fn configuration_with(
    global: &Global,
    early: &EarlyPorts,
    file: &Path,
) -> Outcome<Result<Effective, Vec<Problem>>> {
    let mut sources = local(global, early)?;
    Ok(user_data_of(file)?.map_err(|problem| vec![problem]).and_then(|layers| {
        sources.user_data = layers;
        load(sources.into_layers())
    }))
}

/// Our layers of a file with user-data. That there are none is a problem here, for somebody asked.
fn user_data_of(file: &Path) -> Outcome<Result<Vec<Layer>, Problem>> {
    let place = Place::whole(&file.to_string_lossy());
    let read = std::fs::File::open(file).and_then(|mut file| durable::read_bounded(&mut file, MAX_USER_DATA));
    let bytes = read.map_err(|error| durable::failure(format!("read {}", file.display()), &error))?;
    let Some(bytes) = bytes else {
        let text = format!("it is larger than the {MAX_USER_DATA} bytes that EC2 takes; user-data may be gzip");
        return Ok(Err(Problem::at(&place, text)));
    };
    Ok(match user_data::read(&bytes) {
        Ok(UserData::Ours(layers)) => Ok(layers),
        Ok(UserData::Empty) => Err(Problem::at(&place, "it is empty")),
        Ok(UserData::Other(what)) => {
            let text = format!(
                "it has no configuration for kubestrap: {what}. What cloud-init would write to {} is checked with \
                 `kubestrap --config FILE config check`",
                sources::MAIN
            );
            Err(Problem::at(&place, text))
        }
        Err(problem) => Err(problem),
    })
}

/// What this machine says itself: files and environment.
fn local(global: &Global, early: &EarlyPorts) -> Outcome<Sources> {
    Ok(Sources {
        files: sources::from_files(&*early.files, trust::own_uid(), global.config.as_deref())?,
        environment: environment::layers(std::env::vars()),
        ..Sources::default()
    })
}

async fn layers(
    global: &Global,
    early: &EarlyPorts,
    observer: &Rc<dyn Observer>,
) -> Outcome<Result<Vec<Layer>, Problem>> {
    let mut sources = local(global, early)?;
    let wanted = sources.early();
    if identity::is_ec2(wanted.identity, &*early.files)? {
        let opts = Opts { metadata_endpoint: wanted.metadata_endpoint, ..opts(global) };
        let metadata = adapters::early_ports(&opts)?.metadata;
        let bytes = Imds::new(metadata, early.time.clone()).telling(tell(observer)).user_data().await?;
        match user_data::read(&bytes) {
            Ok(UserData::Other(what)) => {
                observer.on(&Event::Note(&format!("the user-data is not kubestrap's and is left alone: {what}")));
            }
            Ok(data) => sources.user_data = data.layers(),
            Err(problem) => return Ok(Err(problem)),
        }
    }
    Ok(Ok(sources.into_layers()))
}

/// The ports that need no settings.
pub fn early(global: &Global) -> Outcome<EarlyPorts> {
    adapters::early_ports(&opts(global))
}

fn opts(global: &Global) -> Opts {
    Opts::new(&global.root)
}

/// Which store, when it is not the configured one.
#[derive(Args, Clone)]
pub struct StoreArgs {
    /// The store, instead of the configured one: s3://bucket/prefix or file:///folder.
    #[arg(long, value_name = "URL", requires = "cluster_name")]
    store: Option<String>,
    /// The cluster's name, for --store.
    #[arg(long, value_name = "NAME", requires = "store")]
    cluster_name: Option<String>,
    /// Base URL of an S3-compatible server, for --store.
    #[arg(long, value_name = "URL", requires = "store")]
    s3_endpoint: Option<String>,
}

impl StoreArgs {
    /// Whether a store was named.
    pub fn is_given(&self) -> bool {
        self.store.is_some()
    }
}

/// What reads a cluster's objects: with --store from anywhere, without any configuration or identity; otherwise by
/// this machine's configuration.
pub async fn reader(global: &Global, place: &StoreArgs) -> Outcome<(Rc<Settings>, World)> {
    let opts = opts(global);
    let effective = match (&place.store, &place.cluster_name) {
        (Some(store), Some(cluster)) => {
            let text = minimal(store, cluster, place.s3_endpoint.as_deref());
            load(vec![Layer::document("the command line", text)])
        }
        _ => configuration(global, &adapters::early_ports(&opts)?).await?,
    };
    let settings = Rc::new(effective.map_err(|problems| failure(&problems))?.settings);
    let world = World::new(adapters::ports(&settings, &opts)?, Rc::new(Open), Rc::new(Silent));
    Ok((settings, world))
}

/// A configuration that says no more than where the store is. JSON is YAML, so nothing can leave its value.
fn minimal(store: &str, cluster: &str, s3_endpoint: Option<&str>) -> String {
    let mut document = serde_json::json!({ "cluster": cluster, "role": "worker", "store": store });
    if let Some(endpoint) = s3_endpoint {
        document["s3"] = serde_json::json!({ "endpoint": endpoint });
    }
    document.to_string()
}

/// Where the cluster's API server is: the configuration, else the last join bundle; `None` when neither says.
///
/// Errors: the bundle could not be read. Whoever asks whether a cluster lives must not take that for a no.
pub async fn endpoint_of(store: &Store, settings: &Settings) -> Outcome<Option<Endpoint>> {
    if settings.control_plane_endpoint.is_some() {
        return Ok(settings.control_plane_endpoint.clone());
    }
    let Fetched::Found(object) = store.bundle(None).await?.fetched else { return Ok(None) };
    // Only the address is wanted, of a bundle that may have expired long ago; nothing else of it is used.
    let bundle: Option<serde_json::Value> = serde_json::from_slice(&object.body).ok();
    let endpoint = bundle.as_ref().and_then(|bundle| bundle.get("endpoint")?.as_str());
    Ok(endpoint.and_then(|text| Endpoint::parse(text).ok()))
}
