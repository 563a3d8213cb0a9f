# What is in hybond-agent_*.deb; sourced by build.sh.
# shellcheck shell=bash disable=SC2154
stage=$out/hybond-agent

put 755 "$agent" /usr/sbin/hybond-agent
bounded "$agent" "$agent_limit"
# By kind, so that a file which the agent gains is not forgotten here.
for file in guest-agent/system/*; do
    name=${file##*/}
    case $name in
    *.service) put 644 "$file" "/usr/lib/systemd/system/$name" ;;
    *.network) put 644 "$file" "/usr/lib/systemd/network/$name" ;;
    *.rules) put 644 "$file" "/usr/lib/udev/rules.d/$name" ;;
    *.conf) put 644 "$file" "/usr/lib/NetworkManager/conf.d/$name" ;;
    *) die "where does $file go? Say so in packaging/deb/hybond-agent/stage.sh" ;;
    esac
done
put_man packaging/man/hybond-agent.8
put_doc hybond-agent

# A static program needs nothing; whoever has no systemd starts it by other means.
pack hybond-agent ""
