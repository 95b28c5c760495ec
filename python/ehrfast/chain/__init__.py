"""The pipeline admit, order, execute, assemble, commit, publish, prove: a file and one public function each; `Chain`
composes them."""
