"""The command `genrm`.

main        its arguments
preferences pairs of a better and a worse response, from files of the usual layouts
trial       asking judges about such pairs
verdicts    what the answers say of a judge; pure
show        a table, and the calibration curves as a picture
"""
