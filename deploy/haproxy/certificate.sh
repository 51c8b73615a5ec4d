#!/bin/sh
# A certificate for this machine that nobody trusts, to try TLS with: `certificate.sh FOLDER` writes tls.crt, tls.key, and
# both in one, as HAProxy wants it: tls.pem. What is there stays.
set -eu

dir=${1:?usage: certificate.sh FOLDER}
[ ! -e "$dir/tls.pem" ] || exit 0
mkdir -p "$dir"
cd "$dir"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=localhost \
    -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout tls.key -out tls.crt 2>/dev/null
cat tls.crt tls.key >tls.pem.new
# HAProxy in its container is another user.
chmod 644 tls.pem.new
mv tls.pem.new tls.pem
