//! Destination profiles.

use crate::error::Invalid;
use linkerd2_proxy_api::destination as proto;
use weft_model::Profile;

pub(crate) fn decode(_: proto::DestinationProfile) -> Result<Profile, Invalid> {
    Err(Invalid::missing("conversion"))
}

pub(crate) fn encode(_: &Profile) -> Result<proto::DestinationProfile, Invalid> {
    Err(Invalid::missing("conversion"))
}
