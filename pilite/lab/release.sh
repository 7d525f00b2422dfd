# release.sh VERB FOLDER [ID] - the steps of a deploy that happen on the board. POSIX sh, coreutils, util-linux.
#
#   FOLDER/incoming/<id>   half a release: nothing here is ever used
#   FOLDER/releases/<id>   whole: verified against its MANIFEST.sha256 and fsynced before it got this place
#   FOLDER/current         link to the release in use; changes by rename(2) only
#   FOLDER/previous        link to the one before
set -eu
verb=$1 folder=$2 id=${3:-}
KEEP=3

mkdir -p "$folder/incoming" "$folder/releases"
cd "$folder"
exec 9>.lock
flock -w 60 9 || { echo "another deploy holds $folder/.lock" >&2; exit 75; }

target() { readlink "$1" 2>/dev/null | sed 's,^releases/,,'; }

intact() { # FOLDER: exactly the files of its manifest, with the right contents
  [ -d "$1" ] || return 1
  (cd "$1" && sha256sum --quiet --strict -c MANIFEST.sha256 >&2 && [ "$(ls -A | wc -l)" = "$(($(wc -l <MANIFEST.sha256) + 1))" ])
}

link() { # NAME ID: replace a link in one step
  ln -sfn "releases/$2" ".$1.new"
  mv -T ".$1.new" "$1"
  sync .
}

state() {
  echo "current $(target current)"
  echo "previous $(target previous)"
  if intact "releases/$id" 2>/dev/null; then echo "intact yes"; else echo "intact no"; fi
  mkdir -p "incoming/$id"
  (cd "incoming/$id" && find . -type f -exec sha256sum {} + | sed 's,^\([0-9a-f]*\)  \./,file \1 ,')
}

stage() { # incoming/ID -> releases/ID, if it is what its manifest says
  intact "incoming/$id" || { rm -rf "incoming/$id"; echo "the copy on the board is damaged" >&2; exit 65; }
  (cd "incoming/$id" && find . -type f -exec sync {} + && sync .)
  sync incoming
  rm -rf "incoming/damaged"
  if [ -e "releases/$id" ]; then mv -T "releases/$id" incoming/damaged; fi
  mv -T "incoming/$id" "releases/$id"
  sync incoming releases
  rm -rf incoming/damaged
}

switch() { # `previous` first: cut between the two links, a second deploy gives the same end
  [ -d "releases/$id" ]
  old=$(target current)
  if [ "$old" != "$id" ]; then
    if [ -n "$old" ]; then link previous "$old"; fi
    link current "$id"
  fi
  prune
}

prune() { # the newest KEEP releases stay, and what is linked
  ls -1t releases | tail -n "+$((KEEP + 1))" | while read -r old; do
    if [ "$old" != "$(target current)" ] && [ "$old" != "$(target previous)" ]; then rm -rf "releases/$old"; fi
  done
}

discard() { # a release that failed its health check, or was cut off
  rm -rf "incoming/$id"
  if [ "$id" != "$(target current)" ] && [ "$id" != "$(target previous)" ]; then rm -rf "releases/$id"; fi
}

rollback() {
  new=$(target previous) old=$(target current)
  if [ -z "$new" ] || [ "$new" = "$old" ]; then echo "no previous release" >&2; exit 66; fi
  intact "releases/$new" || { echo "the previous release $new is damaged" >&2; exit 65; }
  link current "$new"
  link previous "$old"
  echo "$new"
}

case $verb in
state | stage | switch | discard | rollback) "$verb" ;;
*) echo "release.sh: no verb $verb" >&2; exit 64 ;;
esac
