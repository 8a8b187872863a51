"""Who may do what: keys, tokens, roles and the rules of every address (OWASP API1, API2, API3, API5)."""

import base64
import hashlib
import hmac
import json
import threading
import time

import anyio
import httpx
import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

from citybrain_serving.app import create_app
from citybrain_serving.database import migrate, open_engine
from citybrain_serving.errors import Forbidden, SafetyError, StoreUnavailable
from citybrain_serving.safety import callers
from citybrain_serving.safety.keys import KeyRing
from citybrain_serving.safety.roles import GRANTS, Permission, Principal, Role
from citybrain_serving.safety.rules import RULES, permission_for
from citybrain_serving.safety.tokens import ALGORITHMS, Tokens, key_source
from citybrain_serving.service import Service
from citybrain_serving.settings import Settings

ISSUER = "https://login.example.org"


def opened(location: str) -> sa.Engine:
    engine = open_engine(location)
    migrate(engine)
    return engine


@pytest.fixture
def settings(tmp_path) -> Settings:
    return Settings(store=str(tmp_path / "s.sqlite"), clock="observations")


@pytest.fixture
def ring(settings) -> KeyRing:
    return KeyRing(opened(settings.store))


@pytest.fixture
def ring_of():
    """The key ring of a service. Its keys must be made before the application is."""
    return lambda service: KeyRing(service.store.engine)


def client_of(bundles, settings) -> TestClient:
    """A client of a service that has not computed anything; refusals come before that."""
    return TestClient(create_app(Service(bundles.values(), settings)))


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def test_every_route_stands_in_the_table(service):
    """An address that somebody forgot would be the administrator's alone, which nobody would notice for long."""
    forgotten = []
    for path, operations in create_app(service).openapi()["paths"].items():
        example = path.replace("{", "").replace("}", "")
        forgotten += [
            f"{method.upper()} {path}"
            for method in operations
            if permission_for(method.upper(), example) is Permission.ADMINISTER
        ]
    administration = [
        "GET /v1/models",
        "POST /v1/models/{task}/rollback",
        "POST /v1/models/{task}/swap",
    ]
    assert sorted(forgotten) == administration


def test_the_documentation_says_what_each_operation_takes(service):
    paths = create_app(service).openapi()["paths"]
    assert paths["/v1/observations"]["post"]["x-permission"] == "ingest"
    assert {"401", "403", "429"} <= set(paths["/v1/observations"]["post"]["responses"])
    assert "security" not in paths["/livez"]["get"]
    assert {} in paths["/v1/city"]["get"]["security"]  # there are no keys yet


def test_the_documentation_says_where_a_key_is_needed(bundles, settings, ring):
    ring.create("root", Role.ADMIN)
    paths = create_app(Service(bundles.values(), settings)).openapi()["paths"]
    assert paths["/v1/city"]["get"]["security"] == [{"bearer": []}]


def test_an_address_that_is_not_in_the_table_is_the_administrators(bundles, settings, ring):
    _, viewer = ring.create("screen", Role.VIEWER)
    _, admin = ring.create("root", Role.ADMIN)
    with client_of(bundles, settings) as client:
        assert client.get("/internal", headers=bearer(viewer)).status_code == 403
        assert client.delete("/v1/city", headers=bearer(viewer)).status_code == 403
        assert client.get("/internal", headers=bearer(admin)).status_code == 404
        assert client.get("/internal").status_code == 401


MATRIX = {
    ("GET", "/livez"): {"nobody", "public", "viewer", "ingest", "operator", "admin"},
    ("GET", "/v1/city"): {"public", "viewer", "ingest", "operator", "admin"},
    ("GET", "/metrics"): {"viewer", "operator", "admin"},
    ("GET", "/v2/models/congestion"): {"viewer", "operator", "admin"},
    ("POST", "/v2/models/congestion/infer"): {"viewer", "operator", "admin"},
    ("POST", "/v1/observations"): {"ingest", "admin"},
    ("POST", "/v1/weather-forecasts"): {"ingest", "admin"},
    ("POST", "/v1/cases/7/close"): {"operator", "admin"},
    ("PUT", "/v1/models/congestion"): {"admin"},
}


@pytest.mark.parametrize("public", [False, True])
def test_each_role_gets_what_the_table_says_and_nothing_else(bundles, settings, ring, public):
    callers = {str(role): bearer(ring.create(str(role), role)[1]) for role in Role if role is not Role.PUBLIC}
    callers["public" if public else "nobody"] = {}
    with client_of(bundles, settings.model_copy(update={"open_to_public": public})) as client:
        for (method, path), allowed in MATRIX.items():
            for caller, headers in callers.items():
                status = client.request(method, path, headers=headers).status_code
                refused = status in (401, 403)
                assert refused == (caller not in allowed), f"{caller}: {method} {path} is {status}"


def test_roles_never_lose_what_a_lesser_role_has():
    assert GRANTS[Role.PUBLIC] < GRANTS[Role.VIEWER] < GRANTS[Role.OPERATOR] < GRANTS[Role.ADMIN]
    assert GRANTS[Role.PUBLIC] < GRANTS[Role.INGEST] < GRANTS[Role.ADMIN]
    assert GRANTS[Role.ADMIN] == set(Permission)
    assert {permission for *_, permission in RULES} <= set(Permission)


def test_a_scoped_operator_acts_for_its_own_segments_only():
    west = Principal.of("west", [Role.OPERATOR], ["west"])
    west.require_owner("west", "case 1")
    for other in ("east", "", None):
        with pytest.raises(Forbidden, match="not yours"):
            west.require_owner(other, "case 2")
    Principal.of("centre", [Role.OPERATOR]).require_owner(None, "case 3")


def test_a_scoped_operator_sees_and_acts_on_the_cases_of_its_owner_alone(service, ring_of):
    """r1 is east's, r2 west's (OWASP API1)."""
    ring = ring_of(service)
    centre, west = (
        {"Authorization": f"Bearer {ring.create('desk', Role.OPERATOR, owners)[1]}"} for owners in (None, ["west"])
    )
    with TestClient(create_app(service)) as client:
        for road in ("r1", "r2"):
            opened = client.post("/v1/cases", json={"task": "congestion", "id": road}, headers=centre)
            assert opened.status_code == 201, opened.text
        east, own = (
            next(c["number"] for c in client.get("/v1/cases", headers=centre).json() if c["id"] == road)
            for road in ("r1", "r2")
        )
        assert [case["number"] for case in client.get("/v1/cases", headers=west).json()] == [own]
        assert client.get("/v1/cases?owner=east", headers=west).json() == []
        assert client.get(f"/v1/cases/{own}", headers=west).status_code == 200
        assert client.get(f"/v1/cases/{east}", headers=west).status_code == 403
        step = {"action": "file"}
        assert client.post(f"/v1/cases/{east}/steps", json=step, headers=west).status_code == 403
        assert client.get(f"/v1/cases/{east}", headers=centre).json()["state"] == "discovered"
        assert client.post(f"/v1/cases/{own}/steps", json=step, headers=west).json()["state"] == "filed"
        stolen = client.post("/v1/cases", json={"task": "congestion", "id": "r3"}, headers=west)
        assert stolen.status_code == 403


def test_a_key_is_kept_as_a_hash_and_shown_once(ring, settings):
    key, text = ring.create("gate 7", Role.INGEST)
    stored = ring.engine.connect().execute(sa.text("select * from api_keys")).one()
    assert text.split("_", 2)[2] not in str(stored)
    assert stored.hash.startswith("$argon2id$")
    assert text not in str(ring.list())
    assert ring.verify(text) == key


@pytest.mark.parametrize("spoil", [
    lambda text: "", lambda text: "Bearer", lambda text: text[:-1], lambda text: text + "x",
    lambda text: text.swapcase(), lambda text: "cb_000000000000_" + text.split("_", 2)[2],
    lambda text: "' or 1=1 --", lambda text: "cb__", lambda text: "schlüssel",
])  # fmt: skip
def test_what_is_no_key_is_refused(bundles, settings, ring, spoil):
    _, text = ring.create("gate", Role.ADMIN)
    header = {"Authorization": f"Bearer {spoil(text)}".encode("latin-1")}
    with client_of(bundles, settings) as client:
        answer = client.get("/v1/city", headers=header)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_a_revoked_or_expired_key_opens_nothing(bundles, settings):
    moment = [time.time()]
    ring = KeyRing(opened(settings.store), now=lambda: moment[0])
    short, text = ring.create("visitor", Role.VIEWER, days=1)
    key, other = ring.create("screen", Role.VIEWER)
    assert ring.verify(text) == short
    moment[0] += 86_401
    assert ring.verify(text) is None
    ring.revoke(key.id)
    assert ring.verify(other) is None
    with pytest.raises(SafetyError, match="no key"):
        ring.revoke(key.id)


def test_that_the_last_key_is_revoked_opens_nothing(bundles, settings, ring):
    key, _ = ring.create("root", Role.ADMIN)
    ring.revoke(key.id)
    with client_of(bundles, settings) as client:
        assert client.get("/v1/models").status_code == 401


def test_a_revoked_key_stops_working_within_the_recheck(bundles, settings, ring):
    key, text = ring.create("screen", Role.VIEWER)
    moment = [1_000_000.0]
    door = callers.Callers(ring, None, open_to_public=False, now=lambda: moment[0])

    async def asked() -> bool:
        return await door.identify(bearer(text)["Authorization"].encode(), "1.2.3.4") is not None

    assert anyio.run(asked)
    ring.revoke(key.id)
    moment[0] += callers.RECHECK_SECONDS + 1
    assert not anyio.run(asked)


def test_a_store_that_is_away_is_asked_once_in_a_while_and_holds_up_one_caller(ring, monkeypatch):
    texts = [ring.create(f"screen {n}", Role.VIEWER) for n in range(3)]
    moment, asked, go = [1_000_000.0], [], threading.Event()
    door = callers.Callers(ring, None, open_to_public=False, now=lambda: moment[0])

    async def let_in(number: int) -> bool:
        return await door.identify(bearer(texts[number][1])["Authorization"].encode(), "1.2.3.4") is not None

    def away(self, key_id):
        asked.append(key_id)
        assert go.wait(20)
        raise StoreUnavailable("the network is cut")

    async def asked_while_one_waits() -> list[bool]:
        assert [await let_in(n) for n in range(3)] == [True] * 3
        with monkeypatch.context() as patch:
            patch.setattr(KeyRing, "get", away)
            go.set()
            moment[0] += callers.RECHECK_SECONDS + 1
            assert [await let_in(n) for n in range(3)] == [True] * 3
            assert len(asked) == 1
            moment[0] += callers.RECHECK_SECONDS + 1
            go.clear()
            async with anyio.create_task_group() as group:
                group.start_soon(let_in, 0)
                while len(asked) < 2:
                    await anyio.sleep(0)
                others = [await let_in(n) for n in range(3)]
                go.set()
            assert len(asked) == 2
        ring.revoke(texts[1][0].id)
        moment[0] += callers.RECHECK_SECONDS + 1
        return [*others, *[await let_in(n) for n in range(3)]]

    assert anyio.run(asked_while_one_waits) == [True, True, True, True, False, True]


def test_a_key_is_not_trusted_for_ever_while_the_store_is_away(ring, monkeypatch):
    _, text = ring.create("screen", Role.VIEWER)
    moment = [1_000_000.0]
    door = callers.Callers(ring, None, open_to_public=False, now=lambda: moment[0])

    async def let_in() -> bool:
        return await door.identify(bearer(text)["Authorization"].encode(), "1.2.3.4") is not None

    def away(self, key_id):
        raise StoreUnavailable("the network is cut")

    async def asked() -> list[bool]:
        found = [await let_in()]
        monkeypatch.setattr(KeyRing, "get", away)
        for passed in (callers.GRACE_SECONDS - 1, 2):
            moment[0] += passed
            found.append(await let_in())
        return found

    assert anyio.run(asked) == [True, True, False]


def test_guessing_keys_is_slowed_down(ring):
    """The clock stands still, so that a slow machine cannot make up for the guesses."""
    door = callers.Callers(ring, None, open_to_public=False, now=lambda: 1_000_000.0)
    door.guarded = True

    async def guess() -> list[str]:
        found = []
        for i in range(22):
            try:
                known = await door.identify(f"Bearer cb_{i:012x}_{'A' * 43}".encode(), "1.2.3.4")
                found.append("let in" if known else "refused")
            except callers.TooManyAttempts:
                found.append("slowed")
        other = await door.identify(b"Bearer cb_1_A", "5.6.7.8")
        return [*found, "refused" if other is None else "let in"]

    assert anyio.run(guess) == ["refused"] * 20 + ["slowed"] * 2 + ["refused"]


def test_who_guesses_is_told_when_to_come_back(bundles, settings, ring, monkeypatch):
    ring.create("gate", Role.ADMIN)

    async def slowed(*_args):
        raise callers.TooManyAttempts(2.5)

    monkeypatch.setattr(callers.Callers, "identify", slowed)
    with client_of(bundles, settings) as client:
        answer = client.get("/v1/city", headers=bearer("cb_1_A"))
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "3"


def test_a_key_of_the_public_is_no_key(ring):
    with pytest.raises(SafetyError, match="needs no key"):
        ring.create("all", Role.PUBLIC)
    with pytest.raises(SafetyError, match="printable"):
        ring.create("a\nb", Role.VIEWER)


def test_without_keys_a_caller_on_this_machine_may_do_everything(bundles, settings):
    with client_of(bundles, settings) as client:
        assert client.get("/v1/city").status_code == 200
        assert client.get("/metrics").status_code == 200


@pytest.fixture(scope="module")
def signing() -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": "one"})


@pytest.fixture
def tokens(signing) -> Tokens:
    published = KeySet([RSAKey.import_key(signing.as_dict(private=False))])
    return Tokens(ISSUER, "citybrain", lambda: published, ("RS256",), owners_claim="city.owners")


def claims(**changes) -> dict:
    now = int(time.time())
    made = {"iss": ISSUER, "aud": "citybrain", "sub": "li", "exp": now + 600, "iat": now, "roles": ["operator"]}
    made.update(changes)
    return {name: value for name, value in made.items() if value is not None}


def signed(signing, **changes) -> str:
    return jwt.encode({"alg": "RS256", "kid": "one"}, claims(**changes), signing)


def test_a_token_of_the_provider_is_taken_with_its_roles_and_owners(tokens, signing):
    principal, _ = tokens.verify(signed(signing, roles=["operator", "other"], city={"owners": ["west"]}))
    assert principal.name == "token:li"
    assert principal.permissions == GRANTS[Role.OPERATOR]
    assert principal.owners == {"west"}
    several, _ = tokens.verify(signed(signing, roles="ingest viewer", aud=["other", "citybrain"]))
    assert several.permissions == GRANTS[Role.INGEST] | GRANTS[Role.VIEWER]
    assert several.owners is None


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://login.example.com"},
        {"iss": None},
        {"aud": "other"},
        {"aud": None},
        {"exp": int(time.time()) - 3600},
        {"exp": None},
        {"exp": "never"},
        {"exp": 10**400},
        {"nbf": int(time.time()) + 3600},
        {"sub": None},
        {"roles": []},
        {"roles": ["root"]},
        {"roles": None},
        {"roles": {"admin": True}},
    ],
)
def test_a_token_for_another_place_or_time_is_refused(tokens, signing, changes):
    assert tokens.verify(signed(signing, **changes)) is None


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def test_a_token_signed_by_another_key_or_not_at_all_is_refused(tokens, signing):
    stranger = RSAKey.generate_key(2048, {"kid": "one"})
    assert tokens.verify(signed(stranger)) is None
    head, body, _ = signed(signing).split(".")
    assert tokens.verify(f"{head}.{body}.") is None
    unsigned = base64url(json.dumps({"alg": "none"}).encode())
    assert tokens.verify(f"{unsigned}.{body}.") is None
    # The classic confusion: a symmetric signature made with the provider's public key.
    head = base64url(json.dumps({"alg": "HS256", "kid": "one"}).encode())
    made = hmac.new(signing.as_pem(private=False), f"{head}.{body}".encode(), hashlib.sha256).digest()
    assert tokens.verify(f"{head}.{body}.{base64url(made)}") is None
    for text in ("", "a.b.c", "a" * 10_000, "e30.e30.e30"):
        assert tokens.verify(text) is None


def test_keys_of_the_provider_are_fetched_again_when_they_changed(signing):
    moment = [time.time()]
    published = [KeySet([RSAKey.generate_key(2048, {"kid": "old"})])]
    fetches = []

    def source() -> KeySet:
        fetches.append(moment[0])
        return published[0]

    tokens = Tokens(ISSUER, "citybrain", source, ("RS256",), now=lambda: moment[0])
    text = signed(signing)
    published[0] = KeySet([signing])
    assert tokens.verify(text) is None  # too soon after the last fetch
    moment[0] += 61
    assert tokens.verify(text) is not None
    for _ in range(5):
        tokens.verify("e30.e30.e30")
    assert len(fetches) == 2


def test_a_key_that_the_provider_took_back_signs_no_longer(ring, signing):
    moment, published, away = [time.time()], [KeySet([signing])], []

    def source() -> KeySet:
        if away:
            raise SafetyError("the provider is away")
        return published[0]

    tokens = Tokens(ISSUER, "citybrain", source, ("RS256",), now=lambda: moment[0])
    door = callers.Callers(ring, tokens, open_to_public=False, now=lambda: moment[0])
    header = f"Bearer {signed(signing, exp=int(moment[0]) + 7200)}".encode()

    async def asked() -> list[bool]:
        found = [await door.identify(header, "a") is not None]
        published[0] = KeySet([RSAKey.generate_key(2048, {"kid": "two"})])
        away.append(True)
        moment[0] += 1200
        found.append(await door.identify(header, "a") is not None)  # nobody can say that it was taken back
        away.clear()
        moment[0] += 1200
        return [*found, await door.identify(header, "a") is not None]

    assert anyio.run(asked) == [True, True, False]


def test_a_token_is_taken_to_the_end_of_its_leeway_each_time(ring, signing):
    moment = [time.time()]
    tokens = Tokens(ISSUER, "citybrain", lambda: KeySet([signing]), ("RS256",), now=lambda: moment[0])
    door = callers.Callers(ring, tokens, open_to_public=False, now=lambda: moment[0])
    header = f"Bearer {signed(signing, exp=int(moment[0]) + 5)}".encode()

    async def asked() -> list[bool]:
        found = []
        for _ in range(5):
            moment[0] += 8
            found.append(await door.identify(header, "a") is not None)
        return found

    assert anyio.run(asked) == [True, True, True, True, False]


def test_tokens_open_the_service(bundles, settings, signing, tmp_path):
    published = tmp_path / "jwks.json"
    published.write_text(json.dumps({"keys": [signing.as_dict(private=False)]}))
    oidc = {"oidc_issuer": ISSUER, "oidc_keys": str(published), "oidc_algorithms": "RS256"}
    with client_of(bundles, settings.model_copy(update=oidc)) as client:
        assert client.get("/v1/city", headers=bearer(signed(signing))).status_code == 200
        assert client.get("/v1/city", headers=bearer(signed(signing, aud="other"))).status_code == 401
        assert client.get("/v1/city").status_code == 401


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "oidc_keys"),
        ({"oidc_keys": "http://login.example.org/jwks"}, "https"),
        ({"oidc_keys": "missing.json"}, "cannot be read"),
        ({"oidc_keys": "x", "oidc_algorithms": "HS256"}, "oidc_algorithms"),
        ({"oidc_keys": "x", "oidc_algorithms": ""}, "oidc_algorithms"),
    ],
)
def test_settings_of_tokens_that_are_not_safe_are_refused(bundles, settings, changes, said):
    with pytest.raises(SafetyError, match=said):
        client_of(bundles, settings.model_copy(update={"oidc_issuer": ISSUER, **changes}))


def test_a_provider_that_is_away_at_the_start_keeps_nobody_else_waiting(signing):
    moment, away = [time.time()], [True]
    nobody = key_source("https://127.0.0.1:1/keys")

    def source() -> KeySet:
        return nobody() if away else KeySet([signing])

    tokens = Tokens(ISSUER, "citybrain", source, ("RS256",), now=lambda: moment[0])
    text = signed(signing)
    assert tokens.verify(text) is None
    away.clear()
    moment[0] += 61
    assert tokens.verify(text) is not None


def test_only_public_key_signatures_can_be_allowed(tmp_path):
    assert not {"none", "HS256", "HS384", "HS512"} & set(ALGORITHMS)
    empty = tmp_path / "empty.json"
    empty.write_text("{}")
    with pytest.raises(SafetyError, match="cannot be read"):
        key_source(str(empty))()


def test_refusals_under_v2_speak_the_protocol(bundles, settings, ring):
    ring.create("root", Role.ADMIN)
    with client_of(bundles, settings) as client:
        answer: httpx.Response = client.get("/v2/models/congestion")
    assert answer.status_code == 401
    assert set(answer.json()) == {"error"}
