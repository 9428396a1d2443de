//! Every way to be somebody, right and wrong, and what a wrong one costs.

use super::*;

const ALICE: &str = "alice:$2y$05$P3QfFcPNDiuSMhSZh9edk.DRGWsW.SL3ElXF04l3vb57YWcnPbdae";
const CI: &str = "0123456789abcdef";

fn lasting() -> Arc<Lasting> {
    Arc::new(Lasting::new(Arc::new(Metrics::new(&[], 0).unwrap()), TaskGroup::new()))
}

fn options() -> IdentityOptions {
    IdentityOptions {
        htpasswd: Some(Htpasswd::parse(ALICE).unwrap()),
        tokens: Some(Tokens::parse(&format!("ci:{CI}")).unwrap()),
        token_keys: None,
        service_accounts: None,
        certificates: None,
        anonymous: false,
        token_life: Duration::from_mins(5),
        rules: Vec::new(),
    }
}

fn identities() -> Identities {
    Identities::new(options(), lasting()).unwrap()
}

fn basic(user: &str, password: &str) -> Credential {
    Credential::Basic { user: user.to_owned(), password: Secret::new(password) }
}

fn bearer(token: &str) -> Credential {
    Credential::Bearer(Secret::new(token))
}

fn address(last: u8) -> IpAddr {
    [192, 0, 2, last].into()
}

#[tokio::test]
async fn right_is_somebody_wrong_is_refused_and_foreign_is_what_was_asked_for() {
    let identities = identities();
    let known = |text: &str| Ok(Known::Principal(text.parse().unwrap()));
    let wrong = |reason| Err(Refused::Wrong(reason));
    for (name, credential, expected, if_foreign_passes) in [
        ("a password", basic("alice", "secret"), known("user:alice"), known("user:alice")),
        ("a wrong one", basic("alice", "x"), wrong(AuthFailure::Password), wrong(AuthFailure::Password)),
        ("of another user", basic("bob", "secret"), wrong(AuthFailure::Password), Ok(Known::Foreign)),
        ("a token", bearer(CI), known("token:ci"), known("token:ci")),
        ("as a password", basic("ci", CI), known("token:ci"), known("token:ci")),
        ("of another name", basic("alice", CI), wrong(AuthFailure::Password), wrong(AuthFailure::Password)),
        ("a wrong token for it", basic("ci", "x"), wrong(AuthFailure::Password), wrong(AuthFailure::Password)),
        ("a wrong token", bearer("x"), wrong(AuthFailure::Token), Ok(Known::Foreign)),
        ("one that seems ours", bearer("cachalot.AAAA"), wrong(AuthFailure::Token), wrong(AuthFailure::Token)),
    ] {
        assert_eq!(identities.who(&credential, address(1), Foreign::IsWrong).await, expected, "{name}");
        assert_eq!(identities.who(&credential, address(2), Foreign::Passes).await, if_foreign_passes, "{name}");
    }
}

#[tokio::test]
async fn a_token_of_ours_is_its_holder_as_long_as_there_is_that_holder() {
    let lasting = lasting();
    let before = Identities::new(options(), Arc::clone(&lasting)).unwrap();
    let now = SystemTime::now();
    let (user, token) = (Principal::User("alice".to_owned()), Principal::Token("ci".to_owned()));
    let caller = Holder::Caller(Secret::new("me:secret"));
    let tokens = [Holder::Principal(user.clone()), Holder::Principal(token.clone()), caller]
        .map(|holder| Credential::Bearer(before.token(&holder, now).unwrap()));
    let late = Credential::Bearer(before.token(&Holder::Principal(user.clone()), SystemTime::UNIX_EPOCH).unwrap());
    let [who, who_else, caller] = &tokens;
    // A reload that takes alice out.
    let after = IdentityOptions { htpasswd: None, ..options() };
    let after = Identities::new(after, lasting).unwrap();
    for (identities, alice) in
        [(&before, Ok(Known::Principal(user))), (&after, Err(Refused::Wrong(AuthFailure::Token)))]
    {
        let who_is = async |credential| identities.who(credential, address(1), Foreign::IsWrong).await;
        assert_eq!(who_is(who).await, alice);
        assert_eq!(who_is(who_else).await, Ok(Known::Principal(token.clone())));
        assert_eq!(who_is(caller).await, Ok(Known::Caller(Secret::new("me:secret"))));
        assert_eq!(who_is(&late).await, Err(Refused::Wrong(AuthFailure::Expired)));
    }
}

#[tokio::test]
async fn who_guesses_is_told_to_wait_and_who_knows_is_served() {
    let identities = identities();
    let guesses = (0..200).map(|number| basic("alice", &format!("guess {number}")));
    let guesses: Vec<Credential> = guesses.collect();
    let herd = guesses.iter().map(|guess| identities.who(guess, address(1), Foreign::IsWrong));
    let right = basic("alice", "secret");
    let (answers, good) =
        tokio::join!(futures_util::future::join_all(herd), identities.who(&right, address(2), Foreign::IsWrong));
    let wrong = answers.iter().filter(|answer| **answer == Err(Refused::Wrong(AuthFailure::Password))).count();
    let told = answers.iter().filter(|answer| matches!(answer, Err(Refused::TooOften { .. }))).count();
    assert!((10..20).contains(&wrong) && wrong + told == 200, "{wrong} were computed, {told} were told to wait");
    assert!(good.is_ok());
    let who = async |credential| identities.who(&credential, address(1), Foreign::IsWrong).await;
    assert!(who(basic("alice", "secret")).await.is_ok(), "what is remembered needs no attempt");
    assert!(who(bearer(CI)).await.is_ok() && who(basic("ci", CI)).await.is_ok(), "nor does what is cheap");
    for guess in ["a", "b", "c"] {
        let guess = who(bearer(guess)).await;
        assert!(matches!(guess, Err(Refused::TooOften { .. } | Refused::Wrong(_))), "{guess:?}");
    }
    assert!(matches!(who(bearer("d")).await, Err(Refused::TooOften { .. })));
}

#[tokio::test]
async fn a_cold_herd_with_one_password_is_one_attempt() {
    let identities = identities();
    let credential = basic("alice", "secret");
    let herd = (0..100).map(|_| identities.who(&credential, address(1), Foreign::IsWrong));
    assert!(futures_util::future::join_all(herd).await.iter().all(Result::is_ok));
    let text = identities.lasting.metrics.encode().unwrap();
    assert!(text.contains("\ncachalot_client_passwords_computed_total 1\n"), "{text}");
}

#[test]
fn nothing_secret_is_in_what_can_be_printed() {
    let identities = identities();
    let printed = format!("{identities:?} {:?} {:?}", options(), basic("alice", "secret"));
    for secret in ["$2y$", CI, "secret\""] {
        assert!(!printed.contains(secret), "S-43: {printed}");
    }
}
