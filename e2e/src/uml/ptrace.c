/* Laid over linux.uml by LD_PRELOAD. The kernel 6.1 in it knows 2,696 bytes of a process' registers, and Linux lets them be set only
   with all that the processor has: on one with AMX, which has 11 KiB, every process in user-mode Linux would die at its start
   ("ptrace set fp regs failed, errno = 14"). So what it does not know is left as it is. */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static char all[1 << 16];

long ptrace(enum __ptrace_request request, ...) {
  va_list arguments;
  va_start(arguments, request);
  pid_t pid = va_arg(arguments, pid_t);
  void *addr = va_arg(arguments, void *);
  void *data = va_arg(arguments, void *);
  va_end(arguments);

  /* As in glibc: what is read is the answer. */
  if (request >= PTRACE_PEEKTEXT && request <= PTRACE_PEEKUSER) {
    long word;
    if (syscall(SYS_ptrace, request, pid, addr, &word) < 0) return -1;
    errno = 0;
    return word;
  }
  if ((long)addr != NT_X86_XSTATE || (request != PTRACE_GETREGSET && request != PTRACE_SETREGSET))
    return syscall(SYS_ptrace, request, pid, addr, data);

  struct iovec *known = data, whole = {all, sizeof all};
  if (syscall(SYS_ptrace, PTRACE_GETREGSET, pid, addr, &whole) < 0) return -1;
  if (known->iov_len > whole.iov_len) known->iov_len = whole.iov_len;
  if (request == PTRACE_GETREGSET) {
    memcpy(known->iov_base, all, known->iov_len);
    return 0;
  }
  memcpy(all, known->iov_base, known->iov_len);
  return syscall(SYS_ptrace, request, pid, addr, &whole);
}
