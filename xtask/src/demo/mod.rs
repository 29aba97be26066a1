//! `cargo xtask demo`: a cluster of four processes on one machine.

mod board;
mod world;

use board::Board;
use clap::Args;
use std::io;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use world::World;

/// The nodes: the first is the master.
const NODES: &[&str] = &["master", "worker-1", "worker-2", "worker-3"];
/// It takes some ten seconds; a slow machine may need more.
const DEADLINE: Duration = Duration::from_secs(120);
/// Reports are told at most every 10 s, and changes are looked for every 2 s.
const REPORTS: Duration = Duration::from_secs(25);
/// How often the board is drawn.
const FRAME: Duration = Duration::from_millis(200);

const INTRODUCTION: &str = "\
kubestrap demo: one master and three workers, as separate processes of the real binary on this machine.
Each has its own root folder; they meet only in a file:// store. No root, no AWS, no Kubernetes:
kubeadm is a STAND-IN here. It reads the documents as strictly as kubeadm does and starts a small API
server with a real CA, but it starts no containers.
";

/// Options of `demo`.
#[derive(Args)]
pub struct Demo {
    /// Leave the nodes' folders in place, and say where they are.
    #[arg(long)]
    keep: bool,
}

impl Demo {
    /// Builds, starts the nodes, shows them until all are nodes of the cluster, prints the cluster, cleans up.
    pub fn run(self) -> io::Result<()> {
        println!("{INTRODUCTION}");
        crate::process::build()?;
        let mut world = World::new()?;
        let (sender, lines) = mpsc::channel();
        // The workers first: they wait for a master that does not exist yet, as they would on EC2.
        for name in NODES.iter().rev() {
            world.start(name, *name == NODES[0], sender.clone())?;
        }
        let mut board = Board::new(NODES);
        let began = Instant::now();
        while !board.all_ready() && began.elapsed() < DEADLINE {
            if world.interrupted() {
                board.finish();
                return Err(io::Error::other("interrupted; everything is cleaned up"));
            }
            match lines.recv_timeout(FRAME) {
                Ok(line) => board.take(&line),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
            board.draw();
            if let Some(name) = world.anyone_dead()? {
                board.finish();
                return Err(io::Error::other(format!("{name} ended; its last words: {}", board.last_words(&name))));
            }
        }
        board.finish();
        if !board.all_ready() {
            return Err(io::Error::other("not every node was ready in time"));
        }
        println!(
            "\nFour nodes after {:.1} s. A node reports at most every 10 s; waiting for that ...",
            began.elapsed().as_secs_f64()
        );
        world.await_reports(NODES.len(), REPORTS)?;
        println!("\nWhat the store knows of them:\n");
        println!("$ kubestrap status --cluster --store {} --cluster-name demo", world.store());
        world.status()?;
        println!("\n$ kubestrap analyze            (on worker-1)");
        world.analyze(NODES[1])?;
        if self.keep {
            println!("\nThe nodes' folders stay in {}", world.keep().display());
        }
        Ok(())
    }
}
