use proptest::prelude::*;

use super::*;

proptest! {
    /// Whatever single octet is changed, wherever the file is cut, whichever line is taken out: it shows.
    #[test]
    fn any_edit_shows(
        paths in proptest::collection::vec("[ -~é]{0,20}", 1..8),
        place in any::<prop::sample::Index>(),
        octet in any::<u8>(),
    ) {
        let (octets, head) = chained(paths.iter().map(|path| request(path)));
        prop_assert_eq!(check(&octets, Some(head)).expect("whole").lines, paths.len() as u64);

        let mut edited = octets.clone();
        let at = place.index(octets.len());
        if edited[at] != octet {
            edited[at] = octet;
            prop_assert!(check(&edited, Some(head)).is_err());
            prop_assert!(check(&edited, None).is_err());
        }
        prop_assert!(check(&octets[..at], Some(head)).is_err(), "a cut at the end");
        let mut inserted = octets.clone();
        inserted.insert(at, octet);
        // A line feed more behind a line end is the one thing that changes no line; it is no line either.
        prop_assert!(check(&inserted, Some(head)).is_err());
        let mut lines: Vec<&[u8]> = octets.split_inclusive(|b| *b == b'\n').collect();
        lines.remove(place.index(lines.len()));
        prop_assert!(check(&lines.concat(), Some(head)).is_err(), "a line cut out");
    }

    /// Octets from anywhere are read without a panic.
    #[test]
    fn any_octets_are_read(octets in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = check(&octets, None);
        let _ = chain::read(&octets);
    }
}
