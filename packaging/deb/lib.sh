# Steps that both packages share; sourced by build.sh.
# shellcheck shell=bash disable=SC2154

# put MODE SOURCE TARGET: TARGET below the staged tree.
put() { install -D -m "$1" "$2" "$stage$3"; }

# put_man FILE…: into its section, compressed without name and time.
put_man() {
    local page section
    for page in "$@"; do
        section=$stage/usr/share/man/man${page##*.}
        install -d "$section"
        gzip -9n <"$page" >"$section/${page##*/}.gz"
    done
}

# put_doc PACKAGE: licence and changelog.
put_doc() {
    local doc=$stage/usr/share/doc/$1
    install -d "$doc"
    cp "$top/packaging/deb/copyright" "$doc/copyright"
    printf '%s (%s) unstable; urgency=medium\n\n  * See https://github.com/hybond/hybond\n\n -- %s  %s\n' \
        "$1" "$version" "$maintainer" "$(date -u -R -d "@$SOURCE_DATE_EPOCH")" | gzip -9n >"$doc/changelog.gz"
}

# bounded FILE LIMIT: the sizes that we promise.
bounded() {
    local size
    size=$(stat -c %s "$1")
    [ "$size" -le "$2" ] || die "$(basename "$1") has $size bytes; at most $2 are allowed"
    echo "$(basename "$1"): $size bytes of at most $2"
}

# pack PACKAGE DEPENDS: the staged tree, with the control files of packaging/deb/PACKAGE.
pack() {
    local package=$1 depends=$2 here=$top/packaging/deb/$1 file
    install -d -m 755 "$stage/DEBIAN"
    sed -e "s|@VERSION@|$version|; s|@ARCH@|$arch|; s|@MAINTAINER@|$maintainer|; s|@DEPENDS@|$depends|" \
        -e "s|@SIZE@|$(du -k -s --apparent-size --exclude=DEBIAN "$stage" | cut -f 1)|" \
        "$here/control" | sed '/^Depends: *$/d' >"$stage/DEBIAN/control"
    for file in preinst postinst prerm postrm; do
        [ ! -e "$here/$file" ] || install -m 755 "$here/$file" "$stage/DEBIAN/$file"
    done
    # Whatever lies below /etc is the administrator's to change, except links.
    (cd "$stage" && find etc -type f 2>/dev/null | sed 's|^|/|' | LC_ALL=C sort) >"$stage/DEBIAN/conffiles" || true
    [ -s "$stage/DEBIAN/conffiles" ] || rm "$stage/DEBIAN/conffiles"
    (cd "$stage" && find . -type f -not -path './DEBIAN/*' -printf '%P\0' | LC_ALL=C sort -z | xargs -0 md5sum) \
        >"$stage/DEBIAN/md5sums"
    chmod 644 "$stage/DEBIAN/md5sums"
    # The umask of whoever builds must not show.
    find "$stage" -type d -exec chmod 755 {} +
    find "$stage" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
    DPKG_DEB_THREADS_MAX=1 dpkg-deb --root-owner-group -Zxz --build "$stage" "$out/${package}_${version}_$arch.deb"
}
