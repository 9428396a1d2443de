//! A list of tags or of referrers as an upstream says it: what is read is bounded, in order, and the same when it is read again.

use cachalot::oci::{Referrers, TagList};

/// Bytes of a page in the test; real ones are larger than any input here.
const PAGE_BYTES: usize = 512;

pub(super) fn holds(input: &[u8]) {
    tags(input);
    let Ok(list) = Referrers::read(input) else { return };
    let json = list.to_json();
    let again = Referrers::read(&json).expect("what was written can be read");
    assert_eq!((again.len(), again.to_json()), (list.len(), json.clone()), "P-75: a stable order");
    assert_eq!(list.clone().merged(again).len(), list.len(), "merged with itself it is the same");
    let (mut after, mut seen) = (None, 0);
    loop {
        let page = list.page(&[], after.as_ref(), PAGE_BYTES);
        let count = Referrers::read(&page.json).expect("a page is a list").len();
        seen += count;
        match page.last {
            Some(last) if count > 0 => after = Some(last),
            Some(_) => panic!("a page that leads on has something in it"),
            None => break,
        }
    }
    assert_eq!(seen, list.len(), "P-84: the pages are the list");
}

fn tags(input: &[u8]) {
    let Ok(mut list) = TagList::read(input) else { return };
    let again = TagList::read(&list.to_json()).expect("what was written can be read");
    assert_eq!(again.to_json(), list.to_json());
    assert!(TagList::read(&TagList::without_tags(&list.to_json())).is_ok(), "P-94");
    list.after("m");
    let _last = list.cut(None, Some(2)).map(str::to_owned);
    assert!(TagList::read(&list.to_json()).is_ok());
}
