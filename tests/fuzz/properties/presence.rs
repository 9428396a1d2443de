//! The length of a file, a line break, and a presence record: what is believed lies within the file and the blob.

use cachalot::store::PresenceRecord;

const BOOT: &str = "5f0f1a3c-0000-4000-8000-000000000000";

pub(super) fn holds(input: &[u8]) {
    let Some(at) = input.iter().position(|byte| *byte == b'\n') else { return };
    let Some(written) = std::str::from_utf8(&input[..at]).ok().and_then(|text| text.parse::<u64>().ok()) else {
        return;
    };
    let Some(record) = PresenceRecord::parse(&input[at + 1..]) else { return };
    let Some(believed) = record.believed(BOOT, written) else { return };
    assert_eq!(record.believed("another", written), None, "what the page cache of an earlier run held is lost");
    let mut before = None;
    for run in believed.present.runs() {
        assert!(run.start < run.end && run.end <= written && run.end <= believed.size_bytes, "{run:?}");
        assert!(before.is_none_or(|before| before < run.start), "runs are in order and apart");
        before = Some(run.end);
    }
    assert!(believed.present.len_bytes() <= written);
    let again = PresenceRecord::new(BOOT, believed.class, believed.size_bytes, &believed.present);
    let text = again.as_ref().map(|record| record.to_text().expect("it can be written"));
    let again = text.and_then(|text| PresenceRecord::parse(&text)).and_then(|record| record.believed(BOOT, written));
    assert!(again.is_none_or(|again| again == believed), "written and read again it says the same");
}
