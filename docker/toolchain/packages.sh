# Bring every locked package to its version, from /packages alone, and check the result against the lock.
# In a base that mmdebstrap made of the same archive everything is there already, and only the check is left.
set -eu
cd /toolchain

installed() {  # lines "name version", of packages whose files are there
    dpkg-query -W -f '${db:Status-Abbrev} ${Package} ${Version}\n' | sed -n 's/^ii *//p' | sort
}

cut -d' ' -f1,2 packages.lock | sort > wanted
installed > found
if ! comm -23 wanted found | cmp -s - /dev/null && [ -s /packages/Packages ]; then
    echo 'deb [trusted=yes] copy:/packages ./' > /toolchain/sources.list
    options='-o Dir::Etc::sourcelist=/toolchain/sources.list -o Dir::Etc::sourceparts=/dev/null'
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086  # several words
    apt-get $options -qq update
    # shellcheck disable=SC2046,SC2086
    apt-get $options -qq -y --no-install-recommends --allow-downgrades install $(sed 's/ /=/' wanted)
    installed > found
fi
# A package that is not locked must not be there either.
if ! cmp -s wanted found; then
    echo 'packages.lock and the image differ (- locked, + here):'
    diff -U0 wanted found | sed -n '/^[-+][^-+]/p'
    exit 1
fi
