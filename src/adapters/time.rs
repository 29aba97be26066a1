//! Time and chance.

use async_trait::async_trait;
use jiff::Timestamp;
use kubestrap_core::ports::Time;
use nix::time::{ClockId, clock_gettime};
use std::fs::File;
use std::io::Read;
use std::time::Duration;

/// The machine's clocks, tokio's timer, the kernel's randomness.
#[derive(Debug, Default)]
pub struct SystemTime;

#[async_trait(?Send)]
impl Time for SystemTime {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    /// CLOCK_BOOTTIME: it also counts while the machine is suspended.
    fn uptime(&self) -> Duration {
        // The call fails only for a clock the kernel does not know; BOOTTIME is there since Linux 2.6.39.
        clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    /// From `/dev/urandom`.
    ///
    /// # Panics
    /// When it cannot be read: tokens and uuids that are not random would be worse than no node.
    fn random(&self, buffer: &mut [u8]) {
        if let Err(error) = File::open("/dev/urandom").and_then(|mut file| file.read_exact(buffer)) {
            panic!("failed to read /dev/urandom: {error}; mount devtmpfs on /dev");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uptime_goes_forward_and_randomness_differs() {
        let time = SystemTime;
        let before = time.uptime();
        assert!(before > Duration::ZERO);
        assert!(time.uptime() >= before);
        let (mut one, mut two) = ([0; 32], [0; 32]);
        time.random(&mut one);
        time.random(&mut two);
        assert_ne!(one, two);
    }
}
