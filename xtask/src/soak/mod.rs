//! `cargo xtask soak`: a master and two workers, the real program, for an hour with faults; then it is judged whether
//! they are as they were: memory, descriptors, files, tokens, and every duty.

mod faults;
mod sample;
mod verdict;
mod world;

use clap::Args;
use faults::Weather;
use sample::Sample;
use std::io::{self, Write};
use std::time::{Duration, Instant};
use verdict::{Run, Verdict};
use world::World;

/// Between two samples.
const EVERY: Duration = Duration::from_secs(5);
/// Between two lines for the person who watches.
const LINE: Duration = Duration::from_secs(60);

/// Runs a cluster with faults for a long time and judges what is left of it.
#[derive(Debug, Args)]
pub struct Soak {
    /// How long, in minutes: the last quarter (of a long run: 12 minutes) is without faults
    #[arg(long, default_value_t = 60.0)]
    pub minutes: f64,
    /// The faults; the same seed brings the same faults at the same times
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Leave the folder with the machines and their logs, and say where it is
    #[arg(long)]
    pub keep: bool,
}

impl Soak {
    /// Builds, runs, judges.
    pub fn run(&self) -> io::Result<()> {
        crate::process::build()?;
        let length = Duration::try_from_secs_f64(self.minutes * 60.0).map_err(io::Error::other)?;
        let mut world = World::new()?;
        let result = self.tell(&mut world, length);
        if self.keep || result.is_err() {
            println!("machines and logs are in {}", world.keep().display());
        }
        result
    }

    fn tell(&self, world: &mut World, length: Duration) -> io::Result<()> {
        world.start()?;
        let identity = world.identity()?;
        println!("a master and two workers are nodes; faults begin (seed {})", self.seed);
        let mut samples = vec![Sample::take(world)?];
        let mut weather = Weather::new(self.seed, verdict::pause(length));
        let (began, mut told) = (Instant::now(), Instant::now());
        let stormy = length.saturating_sub(verdict::quiet(length));
        while began.elapsed() < length {
            let until = Instant::now() + EVERY;
            while Instant::now() < until {
                if began.elapsed() < stormy {
                    weather.blow(world)?;
                } else {
                    weather.clear(world)?;
                }
                world.tend()?;
                std::thread::sleep(Duration::from_millis(200));
            }
            let sample = Sample::take(world)?;
            if told.elapsed() >= LINE {
                told = Instant::now();
                println!("{:>6.1} min  {sample}  {}", began.elapsed().as_secs_f64() / 60.0, weather.summary());
                io::stdout().flush()?;
            }
            samples.push(sample);
        }
        println!("faults: {}", weather.all());
        let written = sample::write(&samples)?;
        println!("samples: {}", written.display());
        let run = Run { length, samples, faults: weather.count(), before: identity, after: world.identity()? };
        judge(&run.verdicts())
    }
}

fn judge(verdicts: &[Verdict]) -> io::Result<()> {
    for verdict in verdicts {
        println!("{}  {:<46} {}", if verdict.good { "good" } else { "BAD " }, verdict.what, verdict.found);
    }
    let bad = verdicts.iter().filter(|verdict| !verdict.good).count();
    if bad == 0 { Ok(()) } else { Err(io::Error::other(format!("{bad} of {} verdicts are bad", verdicts.len()))) }
}
