---@meta

-- Types of perilune.crc: see perilune.lua.

---@alias perilune.crc16_name
---| "arc" # 0xBB3D of `123456789`
---| "ibm" # the same
---| "modbus" # 0x4B37
---| "usb" # 0xB4C8
---| "maxim" # 0x44C2
---| "umts" # 0xFEE8
---| "ccitt-false" # 0x29B1
---| "xmodem" # 0x31C3
---| "genibus" # 0xD64E
---| "aug-ccitt" # 0xE5CC
---| "kermit" # 0x2189
---| "mcrf4xx" # 0x6F91
---| "x25" # 0x906E
---| "dnp" # 0xEA82
---| "en13757" # 0xC2B7

--- Checksums of frames. Data that comes in pieces is summed up piece by piece: each call is given what the last one has
--- returned.
---@class perilune.crc
local crc = {}

--- The CRC-32 of zlib, gzip, PNG, Ethernet.
---@param data string
---@param so_far? integer what the call for the data before has returned
---@return integer sum 0 to 2^32 - 1
function crc.crc32(data, so_far) end

--- The CRC-32C of iSCSI, SCTP, Kafka.
---@param data string
---@param so_far? integer
---@return integer sum 0 to 2^32 - 1
function crc.crc32c(data, so_far) end

--- One of 16 bits, by its name.
---@param name perilune.crc16_name
---@param data string
---@param so_far? integer
---@return integer sum 0 to 65535
function crc.crc16(name, data, so_far) end
