#!/bin/bash
# Who the hosts are: ssh keys, and a certificate authority for the mutual TLS of libvirt and hybond, laid out as libvirt
# looks for it below /etc/pki. A second authority, which nobody trusts, is for tests of refusal.
. "$(dirname "$0")/lib.sh"
artifact identity

ssh-keygen -q -t ed25519 -N '' -C lab -f "$work/id"
ssh-keygen -q -t ed25519 -N '' -C lab -f "$work/host_key"

# P-256, because RSA handshakes cost seconds under TCG.
new_key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>/dev/null; }
authority() {
    mkdir -p "$work/$1"
    new_key "$work/$1/cakey.pem"
    openssl req -x509 -new -key "$work/$1/cakey.pem" -days 7300 -subj "/CN=hybond lab $1" -out "$work/$1/cacert.pem" \
        -addext keyUsage=critical,keyCertSign,cRLSign
}
# certificate AUTHORITY HOST ROLE: <host>/pki as it goes to /etc/pki
certificate() {
    local ca=$1 host=$2 role=$3 number=1
    [ "$host" = src ] || number=2
    local dir=$work/$ca/$host
    mkdir -p "$dir/CA" "$dir/libvirt/private"
    cp "$work/$ca/cacert.pem" "$dir/CA/cacert.pem"
    new_key "$dir/libvirt/private/${role}key.pem"
    # Tier 3's management network, and tier 2's.
    openssl req -new -key "$dir/libvirt/private/${role}key.pem" -subj "/O=hybond lab/CN=$host" |
        openssl x509 -req -CA "$work/$ca/cacert.pem" -CAkey "$work/$ca/cakey.pem" -days 7300 \
            -out "$dir/libvirt/${role}cert.pem" -extfile <(
                echo "basicConstraints=critical,CA:FALSE"
                echo "keyUsage=critical,digitalSignature"
                echo "extendedKeyUsage=serverAuth,clientAuth"
                echo "subjectAltName=DNS:$host,IP:10.77.0.$number,IP:10.78.0.$number"
            ) 2>/dev/null
    chmod 600 "$dir/libvirt/private/${role}key.pem"
}
for ca in pki wrong-pki; do
    authority $ca
    for host in src dst; do
        certificate $ca $host server
        certificate $ca $host client
    done
done
finish
