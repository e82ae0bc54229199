/*
 * Preloaded into iscsi-test-cu 1.19 for one test, iSCSITMF.LUNResetSimpleAsync. That version of the test asserts what
 * the callback of iscsi_task_mgmt_async() has found before it lets libiscsi receive anything, so it fails with every
 * target. Here the function returns when the answer has been delivered. What the test then checks is its own.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <iscsi/iscsi.h>
#include <poll.h>
#include <stdint.h>

enum { answer_within_polls = 10, poll_ms = 1000 };

struct waiting {
  iscsi_command_cb callback;
  void *private_data;
  int answered;
};

typedef int task_mgmt_async(struct iscsi_context *, int, enum iscsi_task_mgmt_funcs, uint32_t, uint32_t,
                            iscsi_command_cb, void *);

static void deliver(struct iscsi_context *iscsi, int status, void *command_data, void *private_data) {
  struct waiting *waiting = private_data;
  waiting->answered = 1;
  waiting->callback(iscsi, status, command_data, waiting->private_data);
}

int iscsi_task_mgmt_async(struct iscsi_context *iscsi, int lun, enum iscsi_task_mgmt_funcs function, uint32_t ritt,
                          uint32_t rcmdsn, iscsi_command_cb callback, void *private_data) {
  /* Static: after the last poll the answer may still come. */
  static struct waiting waiting;
  task_mgmt_async *send = (task_mgmt_async *)dlsym(RTLD_NEXT, "iscsi_task_mgmt_async");
  waiting = (struct waiting){callback, private_data, 0};
  int failed = send(iscsi, lun, function, ritt, rcmdsn, deliver, &waiting);
  for (int polls = 0; !failed && !waiting.answered && polls < answer_within_polls; polls++) {
    struct pollfd connection = {.fd = iscsi_get_fd(iscsi), .events = iscsi_which_events(iscsi)};
    poll(&connection, 1, poll_ms);
    if (iscsi_service(iscsi, connection.revents) != 0) break;
  }
  return failed;
}
