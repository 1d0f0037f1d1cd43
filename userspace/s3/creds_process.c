// SPDX-License-Identifier: Apache-2.0
/*
 * credential_process: runs a program and reads credentials from its standard output.
 *
 * The command is split as a shell would (quotes, backslashes) but no shell sees it. The child leads a process group
 * of its own, which is killed whole at the deadline. Its standard error is dropped: it may hold what must not be
 * logged. For the same reason messages name the program, never its arguments.
 */
#define _GNU_SOURCE
#include "s3/creds_i.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/cleanup.h"

#define ARGS_MAX 64

extern char **environ;

struct child {
	const char *program;
	pid_t pid;
	int out_fd, pid_fd;
};

/* Takes one word off *at, unquoted, to <to>. 1 = a word, 0 = the end, -EINVAL = an open quote. */
static int next_word(const char **at, char **to)
{
	const char *s = *at + strspn(*at, " \t\r\n");
	char quote = 0;

	if (!*s)
		return 0;
	for (; *s && (quote || !strchr(" \t\r\n", *s)); s++) {
		if (quote ? *s == quote : *s == '\'' || *s == '"') {
			quote = quote ? 0 : *s;
			continue;
		}
		if (*s == '\\' && quote != '\'' && (!quote || s[1] == '"' || s[1] == '\\')) {
			s++;
			if (!*s)
				return -EINVAL;
		}
		*(*to)++ = *s;
	}
	*(*to)++ = '\0';
	*at = s;
	return quote ? -EINVAL : 1;
}

static int split(const char *command, char *words, char *argv[ARGS_MAX + 1], struct err *e)
{
	unsigned argc = 0;
	int rc;

	for (;;) {
		char *word = words;

		rc = next_word(&command, &words);
		if (rc <= 0)
			break;
		if (argc == ARGS_MAX)
			return err_set(e, -E2BIG, "credential_process has more than %d words", ARGS_MAX);
		argv[argc++] = word;
	}
	argv[argc] = NULL;
	if (rc < 0)
		return err_set(e, rc, "credential_process has an open quote or ends in a backslash");
	return argc ? 0 : err_set(e, -EINVAL, "credential_process is empty");
}

static int spawn_attributes(posix_spawnattr_t *attr)
{
	sigset_t all, none;

	sigfillset(&all);
	sigemptyset(&none);
	return -posix_spawnattr_setsigdefault(attr, &all) ?: -posix_spawnattr_setsigmask(attr, &none) ?:
	       -posix_spawnattr_setpgroup(attr, 0) ?:
	       -posix_spawnattr_setflags(attr, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK |
						       POSIX_SPAWN_SETPGROUP);
}

static int spawn(char *argv[], int out_fd, pid_t *ret)
{
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attr;
	int rc;

	rc = -posix_spawn_file_actions_init(&files);
	if (rc < 0)
		return rc;
	rc = -posix_spawnattr_init(&attr);
	if (rc < 0)
		goto out_files;
	rc = -posix_spawn_file_actions_adddup2(&files, out_fd, 1) ?:
	     -posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0) ?:
	     -posix_spawn_file_actions_addopen(&files, 2, "/dev/null", O_WRONLY, 0) ?:
	     -posix_spawn_file_actions_addclosefrom_np(&files, 3) ?: spawn_attributes(&attr);
	if (rc == 0)
		rc = -posix_spawnp(ret, argv[0], &files, &attr, argv, environ);
	posix_spawnattr_destroy(&attr);
out_files:
	posix_spawn_file_actions_destroy(&files);
	return rc;
}

static int child_start(struct child *c, char *argv[], struct err *e)
{
	_cleanup_close_ int in = -1, out = -1;
	int fds[2], rc;

	*c = (struct child){ .program = argv[0], .out_fd = -1, .pid_fd = -1 };
	if (pipe2(fds, O_CLOEXEC) < 0)
		return err_set(e, -errno, "no pipe for credential_process: %s", strerror(errno));
	in = fds[0];
	out = fds[1];
	if (fcntl(in, F_SETFL, O_NONBLOCK) < 0)
		return err_set(e, -errno, "no pipe for credential_process: %s", strerror(errno));
	rc = spawn(argv, out, &c->pid);
	if (rc < 0)
		return err_set(e, rc, "credential_process %s cannot be started: %s", c->program, strerror(-rc));
	c->out_fd = take_fd(&in);
	c->pid_fd = (int)syscall(SYS_pidfd_open, c->pid, 0);
	return c->pid_fd < 0
		     ? err_set(e, -errno, "credential_process %s cannot be waited for: %s", c->program, strerror(errno))
		     : 0;
}

/* 1 = more may come, 0 = the end of the output. */
static int child_read(const struct child *c, struct creds_text *out, struct err *e)
{
	for (;;) {
		ssize_t n = read(c->out_fd, out->data + out->len, out->max - out->len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return 1;
		if (n < 0)
			return err_set(e, -errno, "credential_process %s: its output cannot be read: %s", c->program,
				       strerror(errno));
		if (n == 0)
			return 0;
		out->len += (size_t)n;
		out->data[out->len] = '\0';
		if (out->len == out->max)
			return err_set(e, -E2BIG, "credential_process %s prints more than %d bytes", c->program,
				       CREDS_REPLY_MAX_BYTES);
	}
}

/* Until the process has ended: what a grandchild holds open is not waited for. */
static int child_wait(const struct creds_fetch *f, struct child *c, struct creds_text *out, struct err *e)
{
	struct pollfd pfds[] = {
		{ .fd = c->pid_fd, .events = POLLIN },
		{ .fd = c->out_fd, .events = POLLIN },
		{ .fd = f->stop_fd, .events = POLLIN },
	};

	for (;;) {
		int rc = poll(pfds, array_len(pfds), (int)creds_left_ms(f));

		if (rc < 0 && errno == EINTR)
			continue;
		if (rc < 0)
			return err_set(e, -errno, "credential_process %s cannot be waited for: %s", c->program,
				       strerror(errno));
		if (rc == 0)
			return err_set(e, -ETIMEDOUT, "credential_process %s did not end in time and was killed",
				       c->program);
		if (pfds[2].revents)
			return err_set(e, -ECANCELED, "credential_process %s was stopped", c->program);
		if (pfds[1].revents) {
			rc = child_read(c, out, e);
			if (rc < 0)
				return rc;
			if (rc == 0)
				pfds[1].fd = -1;
		}
		if (pfds[0].revents) {
			rc = pfds[1].fd >= 0 ? child_read(c, out, e) : 0;
			return rc < 0 ? rc : 0;
		}
	}
}

/* Reaps; <failed> = its answer is not wanted any more. */
static int child_finish(struct child *c, bool failed, struct err *e)
{
	int status = 0;
	pid_t pid;

	if (failed)
		kill(-c->pid, SIGKILL);
	do
		pid = waitpid(c->pid, &status, 0);
	while (pid < 0 && errno == EINTR);
	if (c->out_fd >= 0)
		close(c->out_fd);
	if (c->pid_fd >= 0)
		close(c->pid_fd);
	if (failed)
		return 0;
	if (pid < 0)
		return err_set(e, -EIO, "credential_process %s: its exit status is lost", c->program);
	if (WIFSIGNALED(status))
		return err_set(e, -EIO, "credential_process %s was killed by signal %d", c->program, WTERMSIG(status));
	if (WEXITSTATUS(status) != 0)
		return err_set(e, -EIO, "credential_process %s failed with exit status %d; run it by hand to see why",
			       c->program, WEXITSTATUS(status));
	return 0;
}

static int run(struct creds_fetch *f, char *argv[], struct creds_text *out, struct err *e)
{
	struct child c;
	int rc, end;

	rc = child_start(&c, argv, e);
	if (rc < 0 && c.out_fd < 0)
		return rc;
	if (rc == 0)
		rc = child_wait(f, &c, out, e);
	end = child_finish(&c, rc < 0, e);
	return rc < 0 ? rc : end;
}

int creds_process(struct creds_fetch *f, const char *command, struct s3_creds *ret, struct err *e)
{
	_cleanup_text_ struct creds_text words = { 0 }, out = { 0 };
	struct err why = { 0 };
	char *argv[ARGS_MAX + 1];
	int rc;

	*ret = (struct s3_creds){ 0 };
	rc = creds_text_init(&words, strlen(command) + 1);
	if (rc == 0)
		rc = creds_text_init(&out, CREDS_REPLY_MAX_BYTES + 1);
	if (rc < 0)
		return err_set(e, rc, "no memory for credential_process");
	rc = split(command, words.data, argv, e);
	if (rc < 0)
		return rc;
	rc = run(f, argv, &out, e);
	if (rc < 0)
		return rc;
	rc = creds_json_parse(out.data, out.len, true, ret, &why);
	if (rc < 0)
		return err_set(e, rc, "credential_process %s does not print credentials: %s", argv[0], why.msg);
	return CREDS_FOUND;
}
