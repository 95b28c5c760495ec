"""The pipeline admit, order, execute, assemble, commit, publish, prove: a file each; `Chain` composes them."""
