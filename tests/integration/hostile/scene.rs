//! A victim, and what an attacker can lay hands on.

use crate::http::Server;
use crate::world::{Machine, World};
use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use super::rogue::Rogue;

/// A victim and its surroundings.
pub struct Scene {
    /// Whose folder holds everything that must not change.
    pub world: World,
    /// Who is attacked.
    pub victim: Machine,
    /// What is run on it.
    pub arguments: Vec<String>,
    /// In this environment.
    pub environment: Vec<(String, String)>,
    /// Servers that must not be asked anything.
    pub forbidden: Vec<Rogue>,
    /// Servers that live as long as this.
    pub servers: Vec<Rogue>,
    /// Stand-ins that live as long as this.
    pub standins: Vec<Server>,
}

/// The register and the bundle of a cluster that a real master made.
fn cluster() -> &'static (Value, Value) {
    static CLUSTER: OnceLock<(Value, Value)> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let (world, _master) = World::established();
        (world.register(), world.bundle())
    })
}

impl Scene {
    fn new(world: World, victim: Machine) -> Scene {
        let arguments = ["run", "--once"].map(str::to_owned).to_vec();
        let (environment, forbidden, servers, standins) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Scene { world, victim, arguments, environment, forbidden, servers, standins }
    }

    /// A worker that has not joined yet, and the store of a cluster that it could join.
    pub fn worker() -> Scene {
        let world = World::new();
        let (register, bundle) = cluster();
        world.put("cluster.json", register.to_string().as_bytes());
        world.put("join/worker.json", bundle.to_string().as_bytes());
        let victim = world.worker("w1");
        Scene::new(world, victim)
    }

    /// A master with an empty store.
    pub fn master() -> Scene {
        let world = World::new();
        let victim = world.master("m1");
        Scene::new(world, victim)
    }

    /// A machine whose configuration is what a case writes.
    pub fn bare() -> Scene {
        let world = World::new();
        let victim = world.bare_machine("w1", "");
        Scene::new(world, victim)
    }

    /// What is run.
    pub fn command(&self) -> Command {
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        let mut command = self.victim.command(&arguments);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs this instead.
    pub fn runs(&mut self, arguments: &[&str]) {
        self.arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
    }

    /// With this in the environment.
    pub fn environment(&mut self, name: &str, value: impl Into<String>) {
        self.environment.push((name.to_owned(), value.into()));
    }

    /// Changes the join bundle.
    pub fn bundle(&self, change: impl FnOnce(&mut Value)) {
        self.change("join/worker.json", cluster().1.clone(), change);
    }

    /// Changes the register.
    pub fn register(&self, change: impl FnOnce(&mut Value)) {
        self.change("cluster.json", cluster().0.clone(), change);
    }

    fn change(&self, key: &str, mut object: Value, change: impl FnOnce(&mut Value)) {
        change(&mut object);
        self.world.put(key, object.to_string().as_bytes());
    }

    /// Changes the text of the join bundle.
    pub fn bundle_text(&self, change: impl FnOnce(&str) -> Vec<u8>) {
        self.world.put("join/worker.json", &change(&cluster().1.to_string()));
    }

    /// Where an object of the cluster lies.
    pub fn object(&self, key: &str) -> PathBuf {
        self.world.store_path(&format!("prod/{key}"))
    }

    /// A file of somebody who has nothing to do with this.
    pub fn bystander(&self, name: &str, text: &str) -> PathBuf {
        let path = self.world.path("elsewhere").join(name);
        std::fs::create_dir_all(path.parent().expect("folder")).expect("mkdir");
        std::fs::write(&path, text).expect("write");
        path
    }

    /// Replaces whatever is at `at` by a symbolic link.
    pub fn link(&self, at: PathBuf, to: impl AsRef<std::path::Path>) {
        std::fs::create_dir_all(at.parent().expect("folder")).expect("mkdir");
        let _ = std::fs::remove_file(&at).or_else(|_| std::fs::remove_dir_all(&at));
        std::os::unix::fs::symlink(to, at).expect("link");
    }

    /// Whoever was not to be asked was not.
    pub fn nobody_else_was_asked(&self) {
        for rogue in &self.forbidden {
            assert_eq!(rogue.requests(), Vec::<String>::new(), "it went where it was led");
        }
    }
}
