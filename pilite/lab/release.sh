# release.sh VERB FOLDER OWNER [ID [KEEP]] - the steps of a deploy that happen on the board. POSIX sh, coreutils,
# util-linux, ssh-keygen.
#
#   FOLDER/incoming/<id>   half a release: nothing here is ever used
#   FOLDER/releases/<id>   whole: signed, verified against its MANIFEST.sha256 and fsynced before it got this place
#   FOLDER/current         link to the release in use; changes by rename(2) only
#   FOLDER/previous        link to the one before
#   FOLDER/.lease          who deploys, in which boot, and when it last did something
#   FOLDER/../allowed_signers, or /etc/pilite/allowed_signers if the board's owner made that: whose releases count
set -eu
verb=$1 folder=$2 owner=$3 id=${4:-} keep=${5:-3}
LEASE=600 # seconds after which a deployer that does nothing counts as gone; the clock is the board's uptime

say() { echo "$@" >&2; }

for tool in flock:util-linux sha256sum:coreutils ssh-keygen:openssh-client find:findutils; do
  command -v "${tool%:*}" >/dev/null || { say "there is no ${tool%:*} there: apt-get install ${tool#*:}"; exit 77; }
done
if [ "$verb" = look ]; then
  cd "$folder" 2>/dev/null || exit 0
else
  mkdir -p "$folder/incoming" "$folder/releases"
  cd "$folder"
  exec 9>.lock
  flock -w 60 9 || { say "another deploy holds $folder/.lock"; exit 75; }
fi
allowed=/etc/pilite/allowed_signers
[ -f $allowed ] || allowed=../allowed_signers

target() { # NAME: the release that a link leads to, if to one. Processes are few here: an emulated board starts one in 0.1 s
  found=$(readlink "$1") || found=
  release=${found#releases/}
  case $release in "$found" | *[!0-9a-f]*) release= ;; esac # somebody led it elsewhere
  echo "$release"
}

trusted() { # FOLDER: its manifest is signed by a key that this board trusts
  ssh-keygen -q -Y verify -f "$allowed" -I pilite -n pilite-deploy -s "$1/MANIFEST.sha256.sig" \
    <"$1/MANIFEST.sha256" >/dev/null 2>&1
}

whole() { # FOLDER: exactly the files of its manifest, with the right contents; a link's may change behind our back
  (
    cd "$1" && sha256sum --quiet --strict -c MANIFEST.sha256 >&2 || exit
    types=$(find . -mindepth 1 -printf %y)
    case $types in *[!f]*) exit 1 ;; esac
    [ ${#types} = $(($(wc -l <MANIFEST.sha256) + 2)) ]
  )
}

intact() { [ -d "$1" ] && [ ! -L "$1" ] && trusted "$1" && whole "$1"; }

verify() { # FOLDER WHAT: intact, or exit with the reason
  [ -f "$allowed" ] || { say "there is no $folder/$allowed, which says whose releases count: onboard the board"; exit 77; }
  trusted "$1" || { say "$2 is not signed by a key in $folder/$allowed; if you trust this checkout, add its artifacts/keys/allowed_signers to that file"; exit 77; }
  whole "$1" 2>/dev/null || { say "$2 is damaged"; exit 65; }
}

lease() { # a deployer's lease ends with it, after LEASE s of silence, with a reboot, or when the same one comes back
  read -r now _ </proc/uptime
  read -r boot </proc/sys/kernel/random/boot_id
  now=${now%.*}
  if [ -f .lease ] && read -r who where when <.lease && [ "$who" != "$owner" ] && [ "$where" = "$boot" ]; then
    case $when in "" | *[!0-9]* | 0?* | ???????????*) when=$((now + 1)) ;; esac # damaged: nobody's
    if [ "$when" -le "$now" ] && [ $((now - when)) -lt $LEASE ]; then
      say "$who deploys there and did something $((now - when)) s ago; its turn ends after $LEASE s of silence"
      exit 75
    fi
  fi
  echo "$owner $boot $now" >.lease.new
  mv -T .lease.new .lease
}

link() { # NAME ID: replace a link in one step
  [ -L "$1" ] || [ ! -e "$1" ] || { say "$folder/$1 is no link, so somebody else made it: move it away there"; exit 73; }
  ln -sfT "releases/$2" ".$1.new"
  mv -T ".$1.new" "$1"
  sync .
}

look() { # changes nothing
  echo "current $(target current)"
  echo "previous $(target previous)"
  if intact "releases/$id" 2>/dev/null; then echo "intact yes"; else echo "intact no"; fi
  sed 's/^\([0-9a-f]*\)  /has \1 /' current/MANIFEST.sha256 2>/dev/null || true
}

begin() { # what is there, and what has arrived of ID
  free=$(df -k --output=avail .)
  free=${free##*[!0-9]}
  [ "$free" -ge 64 ] || { say "No space left on device"; exit 74; } # not even a lease could be written
  lease
  look
  echo "free $free"
  if [ -L "incoming/$id" ] || { [ -e "incoming/$id" ] && [ ! -d "incoming/$id" ]; }; then rm -f "incoming/$id"; fi
  mkdir -p "incoming/$id"
  cd "incoming/$id" # what is no file there is not ours
  find . -mindepth 1 -maxdepth 1 ! -type f -exec rm -rf {} + -o -type f -printf 'size %s %f\n' -exec sha256sum {} + | sed 's,^\([0-9a-f]*\)  \./,file \1 ,'
}

own() { # FOLDER: new inodes for its files. The server of a dead link may hold the old ones open: busy, or still written
  rm -f "$1"/*.new # of a shell that was killed here
  for file in "$1"/*; do
    cp -p "$file" "$file.new" || { rm -f "$file.new"; exit 74; }
    mv -T "$file.new" "$file"
  done
}

stage() { # incoming/ID -> releases/ID, if it is what its manifest says and the manifest is signed
  lease
  own "incoming/$id"
  (verify "incoming/$id" "the copy on the board") || { code=$?; rm -rf "incoming/$id"; exit $code; }
  (cd "incoming/$id" && find . -type f -exec sync {} + && sync .)
  sync incoming
  rm -rf "incoming/damaged"
  if [ -e "releases/$id" ] || [ -L "releases/$id" ]; then mv -T "releases/$id" incoming/damaged; fi
  mv -T "incoming/$id" "releases/$id"
  sync incoming releases
  if [ -L incoming ] || [ -L releases ]; then sync -f releases/; fi # to another disk mv copies
  rm -rf incoming/damaged
}

switch() { # `previous` first: cut between the two links, a second deploy gives the same end
  lease
  verify "releases/$id" "the release $id"
  old=$(target current)
  if [ "$old" != "$id" ]; then
    if [ -n "$old" ]; then link previous "$old"; fi
    link current "$id"
  fi
  prune
}

prune() { # the newest KEEP releases stay, and what is linked
  ls -1t releases | tail -n "+$((keep + 1))" | while read -r old; do
    if [ "$old" != "$(target current)" ] && [ "$old" != "$(target previous)" ]; then rm -rf "releases/$old"; fi
  done
}

discard() { # a release that failed its health check, or was cut off
  rm -rf "incoming/$id"
  if [ "$id" != "$(target current)" ] && [ "$id" != "$(target previous)" ]; then rm -rf "releases/$id"; fi
}

rollback() {
  lease
  new=$(target previous) old=$(target current)
  if [ -z "$new" ] || [ "$new" = "$old" ]; then say "no previous release"; exit 66; fi
  verify "releases/$new" "the previous release $new"
  link current "$new"
  link previous "$old"
  echo "$new"
}

end() { # give the lease back
  if [ -f .lease ] && read -r who _ <.lease && [ "$who" = "$owner" ]; then rm -f .lease; fi
}

case $verb in
look | begin | stage | switch | discard | rollback | end) "$verb" ;;
*) say "release.sh: no verb $verb"; exit 64 ;;
esac
