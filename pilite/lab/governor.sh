#!/bin/sh
# pilite-governor hold|restore|install - the clock governor is `performance` while a measurement runs. For root.
#
#   hold     until stdin ends: who measures holds the other end, and however it ends, that end is closed
#   restore  undo a hold that was itself killed (kill -9); every hold does so first
#   install  become /usr/local/sbin/pilite-governor, which the user of sudo may call from now on; nothing else
#
#   $STATE/journal  the boot id, then "policy governor" for all that is changed; gone as soon as nothing is
set -eu
PATH=/usr/sbin:/usr/bin:/sbin:/bin
PROGRAM=/usr/local/sbin/pilite-governor
CPUFREQ=/sys/devices/system/cpu/cpufreq
BOOT=/proc/sys/kernel/random/boot_id
STATE=/run/pilite-governor
WAIT=10 # seconds, for a hold that is just ending
umask 022

say() { echo "$@" >&2; }

alone() { # one at a time; the lock ends with this process
  mkdir -p "$STATE"
  exec 9>"$STATE/lock"
  flock -w "$WAIT" 9 || { say "another measurement holds the clock governor"; exit 75; }
}

restore() { # a journal of another boot is stale, and a policy that is not as hold left it has a new owner
  [ -f "$STATE/journal" ] || return 0
  {
    read -r boot || boot=none
    read -r now <"$BOOT"
    while [ "$boot" = "$now" ] && read -r policy old; do
      file=$CPUFREQ/$policy/scaling_governor
      read -r found 2>/dev/null <"$file" || continue
      [ "$found" != performance ] || echo "$old" 2>/dev/null >"$file" || say "$policy does not go back to $old"
    done
  } <"$STATE/journal"
  rm -f "$STATE/journal"
}

hold() {
  set -- "$CPUFREQ"/policy*/scaling_governor
  [ -e "$1" ] || { say "no cpufreq in $CPUFREQ"; exit 3; }
  restore
  trap restore EXIT
  trap 'exit 0' HUP INT PIPE TERM
  {
    cat "$BOOT"
    for file; do read -r old <"$file"; policy=${file%/*}; echo "${policy##*/} $old"; done
  } >"$STATE/journal.new"
  sync "$STATE/journal.new"
  mv -T "$STATE/journal.new" "$STATE/journal"
  sync "$STATE"
  for file; do
    echo performance 2>/dev/null >"$file" || { say "$file does not take performance"; exit 4; }
  done
  echo held
  while read -r _; do :; done
}

install() {
  cp "$0" "$PROGRAM.new"
  chmod 755 "$PROGRAM.new"
  mv -T "$PROGRAM.new" "$PROGRAM"
  rule=/etc/sudoers.d/pilite
  echo "#${SUDO_UID:?call it with sudo} ALL=(root) NOPASSWD: $PROGRAM hold, $PROGRAM restore" >"$rule.new"
  chmod 440 "$rule.new"
  visudo -cqf "$rule.new"
  mv -T "$rule.new" "$rule"
}

case ${1:-} in
  hold | restore) alone; "$1" ;;
  install) "$1" ;;
  *) say "usage: pilite-governor hold|restore|install"; exit 2 ;;
esac
