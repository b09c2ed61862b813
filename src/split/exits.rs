//! Early exits of a measured network, as policies take them.

use crate::exit::{Rest, Route, Samples, Stage};
use crate::split::{Coding, Cut, Measurements};

impl Measurements {
    /// What the exits said of each image, and what comes out if the device goes on: of a coding, or of the whole network on
    /// the device if there is none.
    pub fn exit_samples<'a>(&'a self, coding: Option<&'a Coding>) -> Samples<'a> {
        Samples {
            labels: &self.labels,
            exits: self.exits.iter().map(|exit| exit.logits.as_slice()).collect(),
            answers: coding.map_or(&self.answers, |coding| &coding.answers),
            bytes: coding.map_or(&[], |coding| &coding.bytes),
        }
    }

    /// The way of an image past the exits: to the server with a coding of the feature at a cut, or of the input if there is
    /// no cut; without a coding, to the end of the network on the device.
    pub fn exit_route(&self, cut: Option<&Cut>, coding: Option<&Coding>) -> Route {
        let exits = self.exits.iter().map(|exit| Stage { seconds: exit.seconds, extra: exit.extra }).collect();
        Route { exits, rest: self.rest(cut, coding) }
    }

    /// The same way without the exits: their logits are not computed, and take no time.
    pub fn direct_route(&self, cut: Option<&Cut>, coding: Option<&Coding>) -> Route {
        let exits = vec![Stage { seconds: 0.0, extra: 0.0 }; self.exits.len()];
        Route { exits, rest: self.rest(cut, coding) }
    }

    fn rest(&self, cut: Option<&Cut>, coding: Option<&Coding>) -> Rest {
        let Some(coding) = coding else { return Rest::Device { seconds: self.whole } };
        let (head, tail) = cut.map_or((0.0, self.whole), |cut| (cut.head, cut.tail));
        Rest::server(head, coding.encode, &coding.bytes, coding.decode + tail)
    }
}
