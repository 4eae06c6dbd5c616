# Completion of perilune for bash. Made by packaging/generate.lua.
_perilune() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} command=${COMP_WORDS[1]}
	local commands="run check test new exec record replay status generations reload upgrade reopen stop drain kick" keys="listen workers modules unsafe compat shared jobs.workers jobs.queue jobs.when_full jobs.lanes jobs.timeout jobs.proceed jobs.memory jobs.message jobs.buffers jobs.unsafe hub.policy hub.messages hub.bytes hub.inbox control log.format log.level log.file log.frame_bytes jit reload.keep reload.when_full reload.canary reload.window reload.max_errors limits.memory limits.garbage limits.handshakes limits.outgoing limits.buffers limits.deflate limits.snapshot name mode backlog keepalive nodelay reuse_port protocol frame proxy trust amplification origins subprotocols compress ping pong reload.policy limits.connections limits.per_ip limits.accept_rate limits.frame limits.uri limits.headers limits.fields limits.body limits.requests limits.upload limits.message limits.inbox limits.mailbox limits.send_buffer limits.proceed limits.allocation limits.slow_consumer limits.reject timeout.read timeout.write timeout.idle timeout.first_frame timeout.proceed timeout.handshake timeout.header timeout.body timeout.drain timeout.upgrade" options="" scripts=""
	# --name=value comes as three words.
	if [[ $prev == "=" ]]; then prev=${COMP_WORDS[COMP_CWORD - 2]}; fi
	if [[ $cur == "=" ]]; then cur=""; fi
	COMPREPLY=()
	if ((COMP_CWORD == 1)); then
		mapfile -t COMPREPLY < <(compgen -W "$commands help --help --version" -- "$cur")
		return
	fi
	case $command in
	run) options="--listen --workers --drain --log-file --log-format --log-level --control --set --watch --record --max-size --force --help" scripts=1 ;;
	check) options="--listen --workers --drain --log-file --log-format --log-level --control --set --print --json --help" scripts=1 ;;
	test) options="--timeout --coverage --watch --help --output -o --pattern -p --filter --tags -t --list -l --shuffle --repeat --no-keep-going --verbose -v --lpath -m" scripts=1 ;;
	new) options="--template --help" ;;
	exec) options="--eval -e --help" scripts=1 ;;
	record) options="--listener --out --seconds --max-size --force --json --control --help" ;;
	replay) options="--timing --ignore --json --help" scripts=1 ;;
	status) options="--watch --json --control --help" ;;
	generations) options="--json --control --help" ;;
	reload) options="--policy --wait --strict --timeout --json --control --help" ;;
	upgrade) options="--wait --timeout --json --control --help" ;;
	reopen) options="--json --control --help" ;;
	stop) options="--wait --timeout --now --json --control --help" ;;
	drain) options="--wait --timeout --json --control --help" ;;
	kick) options="--reason --json --control --help" ;;
	esac
	case $prev in
	--log-format)
		mapfile -t COMPREPLY < <(compgen -W "auto text json" -- "$cur")
		return
		;;
	--log-level)
		mapfile -t COMPREPLY < <(compgen -W "debug info warn error" -- "$cur")
		return
		;;
	--policy)
		mapfile -t COMPREPLY < <(compgen -W "pin migrate drain" -- "$cur")
		return
		;;
	--template)
		mapfile -t COMPREPLY < <(compgen -W "echo chat rpc binary game proxy worker-pool http" -- "$cur")
		return
		;;
	--log-file|--control|--record|--lpath|-m|--out)
		compopt -o filenames 2>/dev/null
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return
		;;
	--set)
		compopt -o nospace 2>/dev/null
		mapfile -t COMPREPLY < <(compgen -S = -W "$keys" -- "$cur")
		return
		;;
	--listen|--workers|--drain|--max-size|--timeout|--coverage|--output|-o|--pattern|-p|--filter|--tags|-t|--shuffle|--repeat|--eval|-e|--listener|--seconds|--control|--timing|--ignore|--reason) return ;;
	esac
	if [[ $cur == -* ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$options" -- "$cur")
	elif [[ $command == help ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$commands" -- "$cur")
	elif [[ $scripts ]]; then
		compopt -o filenames 2>/dev/null
		mapfile -t COMPREPLY < <(compgen -f -X '!*.lua' -- "$cur"; compgen -d -- "$cur")
	fi
}
complete -F _perilune perilune
