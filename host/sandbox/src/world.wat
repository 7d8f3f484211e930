;; A component of the world partita:task/task-module around one core module. Four marks, each two semicolons and a word,
;; stand for what a use of it adds: BODY for the module's functions; COMPONENT, WITH and FIELDS, for most uses empty,
;; for further imports of the component and how they reach the module.
;;
;; The body sees its memory, an allocator, every host function of partita:task/context, and `$done`, which gives back
;; the handles of inputs and outputs, as a guest must, and returns a success. It defines `run` and `describe`
;; in their flattened forms:
;;   run: name, arguments, inputs and outputs, each pointer and length; returns a pointer to the result. Bytes 0..16 of
;;        it are: 0 for success, else 1; at 4: 0 for failed, 1 for retry; at 8 and 12 pointer and length of the message.
;;   describe: returns a pointer to pointer and length of a list of functions.
;; Memory below 1024 belongs to the body and is zero; an address in it is an empty list and a success.
(component
  (import "partita:task/types@0.1.0" (instance $types
    (type $level (enum "debug" "info" "warn" "error"))
    (export "level" (type (eq $level)))
    (type $failure (variant (case "failed" string) (case "retry" string)))
    (export "failure" (type (eq $failure)))
    (type $function (record
      (field "name" string) (field "doc" string) (field "inputs" (option u32)) (field "outputs" (option u32))))
    (export "function" (type (eq $function)))))
  (alias export $types "level" (type $level))
  (alias export $types "failure" (type $failure))
  (alias export $types "function" (type $function))
  (import "partita:task/context@0.1.0" (instance $context
    (alias outer 1 $level (type $outer-level))
    (export "level" (type $level (eq $outer-level)))
    (export "input" (type $input (sub resource)))
    (export "output" (type $output (sub resource)))
    (type $budget (record (field "memory-bytes" u64) (field "cpu-time-us" u64) (field "wall-time-us" u64)))
    (export "budget" (type $exported-budget (eq $budget)))
    (export "[method]input.size" (func (param "self" (borrow $input)) (result u64)))
    (export "[method]input.read"
      (func (param "self" (borrow $input)) (param "offset" u64) (param "length" u32) (result (list u8))))
    (export "[method]output.write" (func (param "self" (borrow $output)) (param "bytes" (list u8))))
    (export "log" (func (param "level" $level) (param "message" string)))
    (export "progress" (func (param "done" u64) (param "total" u64)))
    (export "remaining" (func (result $exported-budget)))
    (export "panicked" (func (param "message" string) (param "location" string)))))
  (alias export $context "input" (type $input))
  (alias export $context "output" (type $output))

  (core module $memory
    (memory (export "memory") 1)
    (global $next (mut i32) (i32.const 1024))
    (func (export "allocate") (param i32 i32 i32 i32) (result i32)
      (local $start i32) (local $missing i32)
      ;; Aligned to 8 from where the last one ended. Nothing is ever freed.
      (local.set $start (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
      (global.set $next (i32.add (local.get $start) (local.get 3)))
      (local.set $missing (i32.sub
        (i32.shr_u (i32.add (global.get $next) (i32.const 65535)) (i32.const 16)) (memory.size)))
      (if (i32.gt_s (local.get $missing) (i32.const 0))
        (then (if (i32.eq (memory.grow (local.get $missing)) (i32.const -1)) (then unreachable))))
      (local.get $start)))
  (core instance $memory (instantiate $memory))
  (alias core export $memory "memory" (core memory $mem))
  (alias core export $memory "allocate" (core func $allocate))

  (core func $size (canon lower (func $context "[method]input.size")))
  (core func $read (canon lower (func $context "[method]input.read") (memory $mem) (realloc (core func $allocate))))
  (core func $write (canon lower (func $context "[method]output.write") (memory $mem)))
  (core func $log (canon lower (func $context "log") (memory $mem)))
  (core func $progress (canon lower (func $context "progress")))
  (core func $remaining (canon lower (func $context "remaining") (memory $mem)))
  (core func $panicked (canon lower (func $context "panicked") (memory $mem)))

  (core func $drop-input (canon resource.drop $input))
  (core func $drop-output (canon resource.drop $output))
  ;;COMPONENT

  (core module $body
    (import "memory" "memory" (memory 1))
    (import "memory" "allocate" (func $allocate (param i32 i32 i32 i32) (result i32)))
    (import "context" "size" (func $size (param i32) (result i64)))
    (import "context" "read" (func $read (param i32 i64 i32 i32)))
    (import "context" "write" (func $write (param i32 i32 i32)))
    (import "context" "log" (func $log (param i32 i32 i32)))
    (import "context" "progress" (func $progress (param i64 i64)))
    (import "context" "remaining" (func $remaining (param i32)))
    (import "context" "panicked" (func $panicked (param i32 i32 i32 i32)))
    (import "context" "drop-input" (func $drop-input (param i32)))
    (import "context" "drop-output" (func $drop-output (param i32)))
    ;;FIELDS
    (func $done (param $groups i32) (param $group-count i32) (param $outputs i32) (param $output-count i32)
      (result i32)
      (local $inputs i32) (local $input-count i32)
      (block $no-more-groups (loop $next-group
        (br_if $no-more-groups (i32.eqz (local.get $group-count)))
        (local.set $inputs (i32.load (local.get $groups)))
        (local.set $input-count (i32.load offset=4 (local.get $groups)))
        (block $no-more-inputs (loop $next-input
          (br_if $no-more-inputs (i32.eqz (local.get $input-count)))
          (call $drop-input (i32.load (local.get $inputs)))
          (local.set $inputs (i32.add (local.get $inputs) (i32.const 4)))
          (local.set $input-count (i32.sub (local.get $input-count) (i32.const 1)))
          (br $next-input)))
        (local.set $groups (i32.add (local.get $groups) (i32.const 8)))
        (local.set $group-count (i32.sub (local.get $group-count) (i32.const 1)))
        (br $next-group)))
      (block $no-more-outputs (loop $next-output
        (br_if $no-more-outputs (i32.eqz (local.get $output-count)))
        (call $drop-output (i32.load (local.get $outputs)))
        (local.set $outputs (i32.add (local.get $outputs) (i32.const 4)))
        (local.set $output-count (i32.sub (local.get $output-count) (i32.const 1)))
        (br $next-output)))
      (i32.const 8))
    ;;BODY
  )
  (core instance $body (instantiate $body
    ;;WITH
    (with "memory" (instance $memory))
    (with "context" (instance
      (export "size" (func $size))
      (export "read" (func $read))
      (export "write" (func $write))
      (export "log" (func $log))
      (export "progress" (func $progress))
      (export "remaining" (func $remaining))
      (export "panicked" (func $panicked))
      (export "drop-input" (func $drop-input))
      (export "drop-output" (func $drop-output))))))

  (func (export "run")
    (param "name" string) (param "args" (list u8))
    (param "inputs" (list (list (borrow $input)))) (param "outputs" (list (borrow $output)))
    (result (result (error $failure)))
    (canon lift (core func $body "run") (memory $mem) (realloc (core func $allocate))))
  (func (export "describe") (result (list $function))
    (canon lift (core func $body "describe") (memory $mem)))
)
