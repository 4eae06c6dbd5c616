/*
 * Where control sockets are when nobody says: NAME-PID.sock, after the script and the process, in
 * $XDG_RUNTIME_DIR/perilune, or in /run/perilune where that is not set. So several servers do not collide, and clients
 * find them.
 *
 * Leaf; threads: one, as it reads the environment.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/un.h>

enum { CONTROL_PATH_BYTES = sizeof((struct sockaddr_un *)0)->sun_path };

/* "chat-4711.sock" for "apps/chat.lua", and for "apps/chat/app.lua" and "apps/chat/init.lua". */
void control_path_name(const char *script, pid_t pid, char *name, size_t size);

/*
 * For a server: makes the folder if it has to, and removes what servers that are no more have left in it. 0, or -1
 * with an explanation.
 */
int control_path_default(const char *script, char path[CONTROL_PATH_BYTES], char *why, size_t size);

/*
 * For a client: visits what may be a server's socket in folder 0, 1, … Returns how many there were, or -1: there is
 * no such folder any more. They are to be looked at in this order.
 */
int control_path_each(unsigned folder, void (*visit)(void *data, const char *path), void *data);

/* Is the server of that socket called so: "chat", "4711", "chat-4711" or "chat-4711.sock"? */
bool control_path_is_called(const char *path, const char *name);

/* A descriptor that is connected (it blocks), or a negative error. */
int control_path_connect(const char *path);
