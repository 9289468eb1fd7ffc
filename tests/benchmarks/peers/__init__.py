"""What people would use instead: one small adapter each. Runs in the process of an experiment.

An adapter is a context manager with a `name`; it starts on entering, and imports its library only then. Each has what
its library can do, of:

    call(number)            call `functions.step` in the first worker
    call_all(number)        call it in all workers at once; the answers in order
    execute(source)         run statements in the first worker
    evaluate(expression)    fetch the value of an expression from there
    map(items)              `functions.identity` of each item, in order, by its best way
    each(items)             the same with one message an item
    push(array)             give the first worker an array; the checksum that it finds
    pull()                  fetch the array that `prepare` made there
    pids()                  the process ids of the workers
    broadcast(array), scatter(array), gather()    the same with all workers, after `prepare_parts`

Each is used as its manual says, in the form that is quickest for the work at hand.
"""
