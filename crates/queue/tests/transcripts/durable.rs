//! Durable activations: the journal before every answer.

use crate::rig::check;

#[test]
fn durable_activation_is_accepted_and_ends_when_the_journal_says_so() {
    check(
        "have c1
         credit c1              -> nothing
         submit a1 durable      -> journal a1
         find a1 journaling
         journal a1 written     -> accepted a1, deliver a1 to c1
         started a1 c1          -> nothing
         completed a1 c1 +1     -> journal end done a1
         find a1 ending
         submit a2              -> accepted a2, deliver a2 to c1
         journal a1 written     -> ack a1 to i1, done a1 to k1
         holds 1",
    );
}
