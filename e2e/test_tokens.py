"""The same tokens, judged by the gateway and by PyJWT: they agree, but for cases in which the gateway is stricter on purpose."""

import base64
import hashlib
import hmac
import http.server
import json
import pathlib
import subprocess
import threading
import time
import unittest

import jwt
import websockets.exceptions
import websockets.sync.client
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import fanwire

SECRET = "a secret of more than sixty-four bytes, for HS512 recommends as many as that"
AUDIENCE, ISSUER = "fanwire", "https://id.example.com"
LEEWAY = 30

# Refused by the gateway although they are good JWTs, and why.
STRICTER = {
    "kid with a path": "a kid is a word",
    "kid that is too long": "a kid has at most 128 bytes",
    "exp in milliseconds": "it would never expire",
    "claims beyond 8 KiB": "a token is no document",
    "a subscription token": "a permission for one channel is no identity",
    "caps with an unknown action": "it may narrow what is granted",
    "caps with an unknown member": "it may narrow what is granted",
    "channels that are no list": "claims have their types",
    "info that is no base64": "claims have their types",
    "expire_at that is a text": "claims have their types",
    "exp as a text": "claims have their types",
    "iat as a text": "claims have their types",
    "nbf as a text": "claims have their types",
}


def public_pem(key):
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


class Keys:
    own_rsa, other_rsa, set_rsa = (rsa.generate_private_key(65537, 2048) for _ in range(3))
    own_ec, other_ec = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    set_ec = ec.generate_private_key(ec.SECP384R1())
    set_ed = ed25519.Ed25519PrivateKey.generate()


def jwk(kid, key, algorithm):
    written = jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key(), as_dict=True)
    written.pop("key_ops", None)
    return {**written, "kid": kid, "use": "sig"}


SET = {"keys": [jwk("rsa", Keys.set_rsa, "RS256"), jwk("ec", Keys.set_ec, "ES384"), jwk("ed", Keys.set_ed, "EdDSA")]}


class KeySet(http.server.BaseHTTPRequestHandler):
    requests = 0

    def do_GET(self):
        KeySet.requests += 1
        body = json.dumps(SET).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def encode(part):
    text = part if isinstance(part, (bytes, str)) else json.dumps(part)
    return base64.urlsafe_b64encode(text if isinstance(text, bytes) else text.encode()).rstrip(b"=").decode()


def by_hand(header, claims, secret=SECRET, digest=hashlib.sha256):
    """A token with any header, signed by HMAC whatever that says."""
    message = f"{encode(header)}.{encode(claims)}"
    return f"{message}.{encode(hmac.new(secret.encode(), message.encode(), digest).digest())}"


def cases():
    now = int(time.time())
    good = {"sub": "42", "aud": AUDIENCE, "iss": ISSUER, "exp": now + 3600}

    def signed(key=SECRET, algorithm="HS256", headers=None, drop=(), **claims):
        merged = {name: value for name, value in {**good, **claims}.items() if name not in drop}
        return jwt.encode(merged, key, algorithm, headers)

    def raw(**claims):
        return by_hand({"alg": "HS256", "typ": "JWT"}, {**good, **claims})

    plain = signed()
    header, payload, signature = plain.split(".")
    forged = encode({**good, "sub": "1"})
    pem = public_pem(Keys.own_rsa)
    yield "good", plain
    for algorithm in ("HS384", "HS512"):
        yield algorithm, signed(SECRET, algorithm)
    for algorithm in ("RS256", "RS384", "RS512"):
        yield algorithm, signed(Keys.own_rsa, algorithm)
    yield "ES256", signed(Keys.own_ec, "ES256")
    yield "RS256 by another key", signed(Keys.other_rsa, "RS256")
    yield "ES256 by another key", signed(Keys.other_ec, "ES256")
    yield "HS256 by another secret", signed(SECRET[::-1])
    yield "HS256 by no secret", by_hand({"alg": "HS256"}, good, "")
    yield "HS256 by the RSA key", by_hand({"alg": "HS256"}, good, pem)
    yield "HS256 by the RSA key, trimmed", by_hand({"alg": "HS256"}, good, pem.strip())
    yield "HS512 by the RSA key", by_hand({"alg": "HS512"}, good, pem, hashlib.sha512)
    yield "RS256 signed by HMAC", by_hand({"alg": "RS256"}, good)
    yield "ES256 signed by HMAC", by_hand({"alg": "ES256"}, good)
    yield "PS256", signed(Keys.own_rsa, "PS256")
    for none in ("none", "None", "NONE", "nOnE", ""):
        yield f"alg {none!r}", f"{encode({'alg': none})}.{payload}."
        yield f"alg {none!r} with a signature", f"{encode({'alg': none})}.{payload}.{signature}"
    yield "no alg", by_hand({"typ": "JWT"}, good)
    yield "alg as a list", by_hand({"alg": ["HS256"]}, good)
    yield "alg in small letters", by_hand({"alg": "hs256"}, good)
    yield "no signature", f"{header}.{payload}."
    yield "no signature part", f"{header}.{payload}"
    yield "four parts", f"{plain}.{signature}"
    yield "other claims under the signature", f"{header}.{forged}.{signature}"
    yield "another header over the signature", f"{encode({'alg': 'HS256'})}.{payload}.{signature}"
    yield "half a signature", f"{header}.{payload}.{signature[:20]}"
    yield "no token at all", "nonsense"
    yield "no JSON in it", f"{encode('text')}.{payload}.{signature}"
    yield "claims that are a list", by_hand({"alg": "HS256"}, [])
    yield "claims that are a text", by_hand({"alg": "HS256"}, '"42"')
    yield "crit that nobody knows", by_hand({"alg": "HS256", "crit": ["x"], "x": 1}, good)
    yield "jwk in the header", signed(Keys.other_rsa, "RS256", {"jwk": jwk("x", Keys.other_rsa, "RS256")})
    yield "jku in the header", signed(Keys.other_rsa, "RS256", {"jku": "http://127.0.0.1:1/", "kid": "x"})
    yield "x5u in the header", signed(Keys.other_rsa, "RS256", {"x5u": "http://127.0.0.1:1/"})
    yield "harmless jku", signed(headers={"jku": "http://127.0.0.1:1/"})
    yield "key set, RSA", signed(Keys.set_rsa, "RS256", {"kid": "rsa"})
    yield "key set, EC", signed(Keys.set_ec, "ES384", {"kid": "ec"})
    yield "key set, Ed25519", signed(Keys.set_ed, "EdDSA", {"kid": "ed"})
    yield "key set, another kid", signed(Keys.set_rsa, "RS256", {"kid": "ec"})
    yield "key set, a kid of no key", signed(Keys.set_rsa, "RS256", {"kid": "who"})
    yield "key set, no kid", signed(Keys.set_rsa, "RS256")
    yield "key set, HMAC with its kid", by_hand({"alg": "HS256", "kid": "rsa"}, good, public_pem(Keys.set_rsa))
    yield "expired", signed(exp=now - 60)
    yield "expired long ago", signed(exp=1)
    yield "expired within the leeway", signed(exp=now - 5)
    yield "no exp", signed(drop=("exp",))
    yield "exp with a fraction", raw(exp=now + 3600.5)
    yield "not yet", signed(nbf=now + 3600)
    yield "not yet, within the leeway", signed(nbf=now + 10)
    yield "issued in the future", signed(iat=now + 3600)
    yield "issued a moment ago", signed(iat=now - 1)
    yield "another audience", signed(aud="other")
    yield "several audiences", signed(aud=["other", AUDIENCE])
    yield "audience with another case", signed(aud="Fanwire")
    yield "audiences without ours", signed(aud=["other"])
    yield "no audience", signed(drop=("aud",))
    yield "another issuer", signed(iss="https://evil.example.com")
    yield "issuer with a slash", signed(iss=ISSUER + "/")
    yield "no issuer", signed(drop=("iss",))
    yield "sub as a number", raw(sub=42)
    yield "no sub", signed(drop=("sub",))
    yield "kid with a path", signed(headers={"kid": "../../../dev/null"})
    yield "kid that is too long", signed(headers={"kid": "k" * 200})
    yield "kid that is a number", by_hand({"alg": "HS256", "kid": 7}, good)
    yield "exp in milliseconds", raw(exp=(now + 3600) * 1000)
    yield "exp as a text", raw(exp=str(now + 3600))
    yield "iat as a text", raw(iat=str(now))
    yield "nbf as a text", raw(nbf=str(now))
    yield "claims beyond 8 KiB", signed(info={"text": "x" * 9000})
    yield "a subscription token", signed(channel="news")
    yield "caps", signed(caps=[{"channels": ["chat:*"], "allow": ["subscribe"]}])
    yield "caps with an unknown action", signed(caps=[{"channels": ["chat:*"], "allow": ["reign"]}])
    yield "caps with an unknown member", signed(caps=[{"channels": ["chat:*"], "allow": [], "if": 1}])
    yield "channels that are no list", signed(channels="news")
    yield "info that is no base64", signed(b64info="?")
    yield "expire_at that is a text", signed(expire_at="0")


def pyjwt(token):
    """What PyJWT says, with the keys that the gateway has."""
    try:
        header = jwt.get_unverified_header(token)
        algorithm, kid = header.get("alg"), header.get("kid")
        keys = []
        if algorithm in ("HS256", "HS384", "HS512"):
            keys.append(SECRET)
        elif algorithm in ("RS256", "RS384", "RS512"):
            keys.append(Keys.own_rsa.public_key())
        elif algorithm == "ES256":
            keys.append(Keys.own_ec.public_key())
        keys += [jwt.PyJWK(key).key for key in SET["keys"] if key["kid"] == kid and jwt.PyJWK(key).algorithm_name == algorithm]
        for key in keys:
            try:
                jwt.decode(token, key, [algorithm], audience=AUDIENCE, issuer=ISSUER, leeway=LEEWAY)
                return "good"
            except jwt.InvalidSignatureError:
                continue
        return "invalid"
    except (jwt.ExpiredSignatureError, jwt.ImmatureSignatureError):
        # Not yet good: the clocks differ, and the client comes back with another.
        return "expired"
    except jwt.PyJWTError:
        return "invalid"


class TokenTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), KeySet)
        threading.Thread(target=server.serve_forever).start()
        cls.addClassCleanup(server.server_close)
        cls.addClassCleanup(server.shutdown)
        cls.gateway = fanwire.Gateway(f"""
[token]
hmac_secret = "{SECRET}"
rsa_public_key = '''{public_pem(Keys.own_rsa)}'''
ecdsa_public_key = '''{public_pem(Keys.own_ec)}'''
audience = "{AUDIENCE}"
issuer = "{ISSUER}"

[[token.jwks]]
url = "http://127.0.0.1:{server.server_port}/keys"

[[namespace]]
name = "chat"
""")
        cls.gateway.__enter__()
        cls.addClassCleanup(cls.gateway.__exit__, None, None, None)

    def verdict(self, token):
        address = self.gateway.public.replace("http", "ws") + "/connection/websocket"
        with websockets.sync.client.connect(address, proxy=None, open_timeout=fanwire.LIMIT) as socket:
            socket.send(json.dumps({"id": 1, "connect": {"token": token}}))
            try:
                reply = json.loads(socket.recv(timeout=fanwire.LIMIT))
            except websockets.exceptions.ConnectionClosed as closed:
                return {3500: "invalid"}[closed.rcvd.code]
            return {109: "expired"}[reply["error"]["code"]] if "error" in reply else "good"

    def inspect(self, token):
        """What the command line says, with the gateway's configuration."""
        file = pathlib.Path(self.gateway.folder.name, "fanwire.toml")
        command = [fanwire.BINARY, "token", "inspect", "--json", "--config", file, token]
        run = subprocess.run(command, capture_output=True, text=True, timeout=fanwire.LIMIT, check=False)
        return run.returncode, json.loads(run.stdout)

    def test_the_command_line_reads_key_sets(self):
        now = int(time.time())
        claims = {"sub": "42", "aud": AUDIENCE, "iss": ISSUER, "exp": now + 3600}
        for kid, key, algorithm in [("rsa", Keys.set_rsa, "RS256"), ("ec", Keys.set_ec, "ES384"), ("ed", Keys.set_ed, "EdDSA")]:
            token = jwt.encode(claims, key, algorithm, {"kid": kid})
            code, found = self.inspect(token)
            self.assertEqual((code, found["good"]), (0, True), found)
            code, found = self.inspect(jwt.encode(claims, key, algorithm, {"kid": "nobody's"}))
            self.assertEqual((code, found["good"]), (4, False), found)
        # Where a set cannot be read, nothing is said about a token that may be good.
        file = pathlib.Path(self.gateway.folder.name, "fanwire.toml")
        text = file.read_text()
        file.write_text(text.replace("/keys\"", "/keys\"\n[[token.jwks]]\nurl = \"http://127.0.0.1:1/\""))
        self.addCleanup(file.write_text, text)
        code, found = self.inspect(jwt.encode(claims, Keys.set_ec, "ES384", {"kid": "new"}))
        self.assertEqual((code, found["good"]), (3, None), found)

    def test_verdicts_agree(self):
        seen, stricter, began, requests = 0, set(), time.monotonic(), KeySet.requests
        for name, token in cases():
            with self.subTest(name):
                ours, theirs = self.verdict(token), pyjwt(token)
                seen += 1
                if name in STRICTER:
                    stricter.add(name)
                    self.assertEqual((ours, theirs), ("invalid", "good"), STRICTER[name])
                else:
                    self.assertEqual(ours, theirs)
        self.assertGreaterEqual(seen, 80)
        self.assertEqual(stricter, set(STRICTER))
        # Tokens with unknown kids make it be read again, but not more often than twice a minute.
        self.assertLessEqual(KeySet.requests - requests, 1 + (time.monotonic() - began) // 30)


if __name__ == "__main__":
    unittest.main()
