//! Floods of frames that cost the sender nothing (CVE-2019-9511 to 9518): pings, settings, priorities, windows, empty frames.

use crate::{
    frames::*,
    lab::{Budget, Lab},
    measure::alone,
};

#[test]
fn every_kind_of_frame_is_bounded() {
    alone(module_path!(), "every_kind_of_frame_is_bounded", async || {
        let lab = Lab::start().await;
        let budget = Budget { open: 1, answers: 600, requests: 100, ..Budget::default() };
        let nothing: &[u8] = &[];
        let opened: &[u8] = &open(1);
        // Five settings in each frame.
        let settings: Vec<u8> = (1..=5).flat_map(|_| [0, 4, 0, 0, 0xff, 0xff]).collect();
        let mut dependency = 1_u32.to_be_bytes().to_vec();
        dependency.push(7);
        let floods: [(&str, &[u8], Vec<u8>); 14] = [
            ("pings", nothing, frame(PING, 0, 0, &[0; 8])),
            ("answers to no ping", nothing, frame(PING, ACK, 0, &[0; 8])),
            ("settings", nothing, frame(SETTINGS, 0, 0, &[])),
            ("settings that say much", nothing, frame(SETTINGS, 0, 0, &settings)),
            ("priorities of one stream", nothing, frame(PRIORITY, 0, 3, &dependency)),
            ("windows of the connection", nothing, frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
            ("windows of a stream", opened, frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])),
            ("data without content", opened, frame(DATA, 0, 1, &[])),
            ("data of padding alone", opened, frame(DATA, PADDED, 1, &[9, 0, 0, 0, 0, 0, 0, 0, 0, 0])),
            ("frames of no kind", nothing, frame(99, 0, 0, &[])),
            ("large frames of no kind", nothing, frame(99, 0, 0, &[0; 16_000])),
            ("frames of no kind on a stream", opened, frame(0xfa, 0xff, 1, b"x")),
            ("goodbyes", nothing, frame(GOAWAY, 0, 0, &[0; 8])),
            ("resets of one stream", opened, reset(1)),
        ];
        for (what, first, again) in &floods {
            let budget = if again.len() > 1000 { Budget { read: 4e6, ..budget } } else { budget };
            lab.attack(what, budget, &[code::ENHANCE_YOUR_CALM], first, |_| again.clone()).await;
        }
        // Another stream each time: none of them ever was.
        let priorities = |n: u32| frame(PRIORITY, 0, 2 * n + 1, &[0, 0, 0, 0, 7]);
        lab.attack("priorities of streams that never were", budget, &[code::ENHANCE_YOUR_CALM], &[], priorities).await;
        // An acknowledgement of nothing is a mistake at once, and so is a promise of a client.
        let acknowledged = |_| frame(SETTINGS, ACK, 0, &[]);
        lab.attack("answers to no settings", budget, &[code::PROTOCOL_ERROR], nothing, acknowledged).await;
        let promise = |n: u32| frame(PUSH_PROMISE, END_HEADERS, 1, &[&(2 * n + 2).to_be_bytes()[..], HANGING].concat());
        lab.attack("promises", budget, &[code::PROTOCOL_ERROR], opened, promise).await;
        lab.verdict();
    });
}
