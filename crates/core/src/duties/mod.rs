//! How a node stays a good one: the duties of its agent.

mod bundle;
mod certificates;
mod drift;
mod end;
mod grant;
mod images;
mod keep_members;
mod keep_nodes;
mod keep_pki;
mod launch;
pub(crate) mod lead;
mod register;
mod registry;
mod renew;
mod report;
pub(crate) mod rollout;

pub use report::{build_report, final_report};

use crate::config::settings::Settings;
use crate::engine::Duty;
use crate::model::identity::Role;

/// The duties that these settings ask for.
pub fn of(settings: &Settings) -> Vec<Box<dyn Duty>> {
    // Logins before images, which may need them.
    let mut duties: Vec<Box<dyn Duty>> = vec![
        Box::<report::ReportDuty>::default(),
        Box::new(certificates::CertificatesDuty),
        Box::<registry::RegistryDuty>::default(),
        Box::<images::ImagesDuty>::default(),
        Box::<drift::DriftDuty>::default(),
        Box::<grant::GrantDuty>::default(),
        Box::<end::EndDuty>::default(),
        Box::<launch::LaunchDuty>::default(),
    ];
    if settings.role == Role::Master {
        // Without the setting there is one master, which leads without being elected.
        if settings.pki.is_some() {
            duties.push(Box::<lead::LeadDuty>::default());
            duties.push(Box::<keep_members::MembersDuty>::default());
        }
        duties.push(Box::<keep_nodes::NodesDuty>::default());
        duties.push(Box::<bundle::BundleDuty>::default());
        duties.push(Box::<register::RegisterDuty>::default());
        duties.push(Box::<rollout::RolloutDuty>::default());
        duties.push(Box::<renew::RenewDuty>::default());
        if settings.pki.is_some() {
            duties.push(Box::<keep_pki::PkiDuty>::default());
        }
    }
    duties
}
