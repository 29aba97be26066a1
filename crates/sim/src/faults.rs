//! What goes wrong by chance with one request, one call, one phase of kubeadm: each kind with its own name and count.

macro_rules! faults {
    ($( $(#[$doc:meta])* $name:ident => $label:literal; )*) => {
        /// A kind of fault that is drawn anew for each request, call or phase.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fault { $( $(#[$doc])* $name, )* }

        impl Fault {
            /// Every kind, in the order of the variants.
            pub const ALL: &'static [Fault] = &[ $( Fault::$name, )* ];

            /// Its name in counts and on the command line.
            pub fn name(self) -> &'static str {
                match self { $( Fault::$name => $label, )* }
            }
        }
    };
}

faults! {
    /// A write does not arrive; its connection breaks.
    WriteLost => "write-lost";
    /// A write takes effect; its connection breaks before the answer comes.
    AnswerLost => "answer-lost";
    /// The sender is told that nobody knows, and the write lands up to twenty minutes later, whatever became of the
    /// sender.
    WriteLate => "write-late";
    /// `503 SlowDown`: the store asks for patience; nothing was done.
    SlowDown => "slow-down";
    /// `409 ConditionalRequestConflict`: another request for the same key was under way. Whether this one was done is
    /// not said.
    Conflict => "conflict-409";
    /// A proxy repeats a write that had taken effect, and passes on the answer to the second: `412`, for one's own write.
    OwnWriteRefused => "own-write-412";
    /// A request to the store, EC2 or the Kubernetes API is not answered at all: only its deadline ends it.
    TimeOut => "time-out";
    /// `403`, passing: a policy that is being changed.
    Denied => "denied-403";
    /// A read of the store fails with a 5xx.
    ReadFails => "read-fails";
    /// The Kubernetes API answers 503, or its connection breaks before anything is done.
    ApiFails => "api-fails";
    /// A change through the Kubernetes API is done, and its answer is lost.
    ApiAnswerLost => "api-answer-lost";
    /// An etcd member does not answer in time, or its connection breaks before anything is done.
    EtcdFails => "etcd-fails";
    /// A change of etcd's members is done, and its answer is lost.
    EtcdAnswerLost => "etcd-answer-lost";
    /// EC2 refuses with RequestLimitExceeded.
    Ec2Throttled => "ec2-throttled";
    /// EC2 does not show an instance that exists.
    Ec2Hides => "ec2-hides";
    /// EC2 does not show the instance that asks.
    Ec2HidesAsker => "ec2-hides-asker";
    /// EC2 repeats a state that an instance had minutes ago.
    Ec2OldState => "ec2-old-state";
    /// ECR refuses with ThrottlingException.
    EcrThrottled => "ecr-throttled";
    /// ECR denies a login, passing: a policy that is being changed.
    EcrDenied => "ecr-denied";
    /// ECR gives a login that ends within seconds.
    EcrNearlyOver => "ecr-nearly-over";
    /// KMS answers with a 5xx.
    KmsDown => "kms-down";
    /// KMS denies, passing: a policy that is being changed.
    KmsDenied => "kms-denied";
    /// The metadata service does not answer.
    ImdsLost => "imds-lost";
    /// It answers 404 for what every instance has.
    Imds404 => "imds-404";
    /// It answers 5xx.
    Imds5xx => "imds-5xx";
    /// It throttles with 429.
    ImdsThrottled => "imds-throttled";
    /// It no longer accepts the session token (401).
    ImdsExpired => "imds-expired-401";
    /// The agent is killed before a change.
    KilledBefore => "killed-before";
    /// The agent is killed after a change, its answer lost.
    KilledAfter => "killed-after";
    /// The agent is killed in the middle of writing a file (appends torn, temporary files left).
    KilledWithin => "killed-within";
    /// The agent is killed at a call that only reads.
    KilledReading => "killed-reading";
    /// A kubeadm phase fails.
    JobFails => "kubeadm-fails";
    /// A kubeadm phase never ends.
    JobHangs => "kubeadm-hangs";
    /// A kubeadm that fails prints its token, as it does with a higher verbosity.
    JobTells => "kubeadm-tells";
    /// A write to the disk takes seconds.
    SlowDisk => "slow-disk";
}

impl Fault {
    /// Whether it can only strike instances of EC2.
    pub fn is_of_ec2(self) -> bool {
        ["ec2-", "ecr-", "kms-", "imds-"].iter().any(|service| self.name().starts_with(service))
    }
}

/// How often each fault strikes, per 100 000 opportunities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates([u32; Fault::ALL.len()]);

impl Rates {
    /// Nothing goes wrong.
    pub const NONE: Rates = Rates([0; Fault::ALL.len()]);

    /// A store and a network on a very bad day.
    pub const BAD_NETWORK: Rates = Rates::NONE
        .with(Fault::WriteLost, 5_000)
        .with(Fault::AnswerLost, 6_000)
        .with(Fault::WriteLate, 8_000)
        .with(Fault::SlowDown, 4_000)
        .with(Fault::Conflict, 3_000)
        .with(Fault::OwnWriteRefused, 3_000)
        .with(Fault::TimeOut, 1_000)
        .with(Fault::Denied, 1_000)
        .with(Fault::ReadFails, 3_000)
        .with(Fault::ApiFails, 4_000)
        .with(Fault::ApiAnswerLost, 4_000);

    /// EC2 that is consistent eventually, and a metadata service under load.
    pub const BAD_CLOUD: Rates = Rates::NONE
        .with(Fault::Ec2Throttled, 10_000)
        .with(Fault::Ec2Hides, 15_000)
        .with(Fault::Ec2HidesAsker, 10_000)
        .with(Fault::Ec2OldState, 15_000)
        .with(Fault::ImdsLost, 8_000)
        .with(Fault::Imds404, 5_000)
        .with(Fault::Imds5xx, 5_000)
        .with(Fault::ImdsThrottled, 5_000)
        .with(Fault::ImdsExpired, 5_000);

    /// Agents are killed wherever it hurts.
    pub const KILLS: Rates = Rates::NONE
        .with(Fault::KilledBefore, 3_000)
        .with(Fault::KilledAfter, 3_000)
        .with(Fault::KilledWithin, 3_000)
        .with(Fault::KilledReading, 30);

    /// All of it, and kubeadm fails and hangs too.
    pub const ALL: Rates = Rates::NONE
        .with(Fault::WriteLost, 2_500)
        .with(Fault::AnswerLost, 3_000)
        .with(Fault::WriteLate, 6_000)
        .with(Fault::SlowDown, 2_000)
        .with(Fault::Conflict, 1_500)
        .with(Fault::OwnWriteRefused, 1_500)
        .with(Fault::TimeOut, 500)
        .with(Fault::Denied, 500)
        .with(Fault::ReadFails, 1_500)
        .with(Fault::ApiFails, 2_000)
        .with(Fault::ApiAnswerLost, 2_000)
        .with(Fault::Ec2Throttled, 3_000)
        .with(Fault::Ec2Hides, 5_000)
        .with(Fault::Ec2HidesAsker, 3_000)
        .with(Fault::Ec2OldState, 5_000)
        .with(Fault::EcrThrottled, 3_000)
        .with(Fault::ImdsLost, 2_000)
        .with(Fault::Imds404, 2_000)
        .with(Fault::Imds5xx, 2_000)
        .with(Fault::ImdsThrottled, 1_000)
        .with(Fault::ImdsExpired, 1_000)
        .with(Fault::KilledBefore, 1_500)
        .with(Fault::KilledAfter, 2_000)
        .with(Fault::KilledWithin, 1_500)
        .with(Fault::KilledReading, 20)
        .with(Fault::JobFails, 2_000)
        .with(Fault::JobHangs, 300)
        .with(Fault::JobTells, 50_000);

    /// The same, but this fault strikes this often.
    #[must_use]
    pub const fn with(mut self, fault: Fault, per_100k: u32) -> Self {
        self.0[fault as usize] = per_100k;
        self
    }

    /// How often this fault strikes, per 100 000 opportunities.
    pub const fn of(&self, fault: Fault) -> u32 {
        self.0[fault as usize]
    }

    /// The faults that strike at all.
    pub fn in_use(&self) -> impl Iterator<Item = Fault> {
        Fault::ALL.iter().copied().filter(|fault| self.of(*fault) > 0)
    }
}
